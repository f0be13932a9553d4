/** The whole screen. */

import type { JSX } from "preact";
import * as store from "../store";
import { Chosen } from "./chosen";
import { ClassList } from "./classlist";
import { Compose } from "./compose";
import { HistogramLine } from "./histogram";
import { ItemDialog } from "./itemdialog";
import { Jobs } from "./jobs";
import { Announced, Help, Strip, Toast } from "./notices";
import { Results } from "./results";
import { Start } from "./start";
import { Tabs } from "./tabs";
import { Top } from "./top";

export function App(): JSX.Element {
  const asked = store.current.value !== null;
  const several = store.set.value.classes.length > 1;
  return (
    <>
      <div class="sticky"><Top /></div>
      <Strip />
      <Jobs />
      <div class={several ? "body several" : "body"}>
        <ClassList />
        <main>
          {asked ? (
            <>
              <div class="question">
                <Compose />
                <HistogramLine />
              </div>
              <Tabs />
              <Results />
            </>
          ) : store.opened.value ? (
            <Start />
          ) : null}
        </main>
      </div>
      <Chosen />
      {store.item.value === null ? <Toast /> : null}
      <Announced />
      <ItemDialog />
      <Help />
    </>
  );
}
