/** The classes of the set, once there are two. */

import type { JSX } from "preact";
import { keyOf } from "../asking";
import { addClass, choose, removeClass } from "../editing";
import * as store from "../store";
import { labelAll } from "../working";
import { count } from "../words";
import { Adding } from "./compose";
import { FORMATS } from "./exporting";
import { Cross } from "./icons";
import { Menu } from "./menu";

export function ClassList(): JSX.Element | null {
  const set = store.set.value;
  if (set.classes.length < 2) return null;
  return (
    <nav class="classes" aria-label="Classes">
      <p class="head">Classes</p>
      <ul>
        {set.classes.map((one, i) => {
          const n = i === store.active.value ? store.counts.value?.matched : store.matchedBy.value.get(keyOf(set, one));
          return (
            <li key={one.name}>
              <button type="button" class="class" aria-current={i === store.active.value} onClick={() => void choose(i)}>
                <span>{one.name}</span> <span class="n">{n === undefined ? "" : count(n)}</span>
              </button>
              <button type="button" class="gone" title={`Remove ${one.name}`} aria-label={`Remove ${one.name}`} onClick={() => void removeClass(i)}><Cross /></button>
            </li>
          );
        })}
      </ul>
      <Adding label="New class" hint="what it looks like" add={(text) => void addClass(text)} />
      <LabelMenu />
    </nav>
  );
}

export function LabelMenu(): JSX.Element {
  const n = store.collection.value?.count ?? 0;
  return (
    <Menu label={<>Label all {count(n)}</>} class="quiet label-all" title="Every picture gets the class that suits it best">
      <p class="head">Every picture with its class, as</p>
      {(store.info.value?.formats.label ?? []).map((format) => (
        <button type="button" key={format} onClick={() => void labelAll(format)}>{FORMATS[format] ?? format}</button>
      ))}
    </Menu>
  );
}
