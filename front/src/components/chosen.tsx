/** The bar at the bottom, while something is chosen. */

import type { JSX } from "preact";
import { unchoose } from "../editing";
import { mark } from "../marking";
import { MOST_AT_ONCE, subjects, useAsExamples } from "../showing";
import * as store from "../store";
import { count } from "../words";
import { ExportMenu } from "./exporting";
import { Cross } from "./icons";

export function Chosen(): JSX.Element | null {
  const all = store.allChosen.value;
  const n = all ? store.whole.value : store.chosen.value.size;
  if (!n) return null;
  const many = all && store.next.value !== null;
  const why = many ? "Not all of these are loaded; choose fewer." : undefined;
  return (
    <aside class="chosen" aria-label="What is chosen">
      <span><b>{count(n)}</b> chosen</span>
      <button type="button" class="quiet" disabled={many} title={why} onClick={() => mark(subjects(), "right")}>Right <kbd>Y</kbd></button>
      <button type="button" class="quiet" disabled={many} title={why} onClick={() => mark(subjects(), "wrong")}>Wrong <kbd>N</kbd></button>
      <button type="button" class="quiet" disabled={many || n > MOST_AT_ONCE} title={why} onClick={() => void useAsExamples("positive")}>Use as example <kbd>E</kbd></button>
      <ExportMenu />
      <button type="button" class="quiet round" aria-label="Choose nothing" title="Choose nothing (Esc)" onClick={unchoose}><Cross /></button>
    </aside>
  );
}
