/** What the collection is served with beyond its own model: flags that leave out, other languages, ratings. */

import type { JSX } from "preact";
import type { Flag } from "../answers";
import { setShape, toggleFlag } from "../editing";
import { WEIGHT } from "../link";
import * as store from "../store";
import { Cross } from "./icons";

const NAMES: Record<string, string> = { safety: "unsafe", violence: "violent" };
const KINDS: Record<Flag["kind"], string> = { head: "trained head", prompts: "prompt filter", class: "class of examples" };

const nameOf = (flag: Flag): string => NAMES[flag.name] ?? flag.name;

/** The part of the menu in which they are switched; only what there is. */
export function Offers(): JSX.Element {
  const { flags, ratings, multilingual } = store.collection.value ?? { flags: [], ratings: [], multilingual: false };
  const rating = store.rated.value;
  return (
    <>
      {flags.length ? <p class="head">Leave out</p> : null}
      {flags.map((flag) => (
        <label class="check" key={flag.name}>
          <input type="checkbox" checked={store.left.value.includes(flag)} onChange={() => void toggleFlag(flag.name)} />
          <span>{nameOf(flag)} <span class="faint">({KINDS[flag.kind]})</span></span>
        </label>
      ))}
      {ratings.length || multilingual ? <p class="head">Ask</p> : null}
      {multilingual ? (
        <label class="check">
          <input type="checkbox" checked={store.foreign.value} onChange={() => void setShape({ multilingual: !store.foreign.value })} />
          <span>in any language <span class="faint">(multilingual model)</span></span>
        </label>
      ) : null}
      {ratings.length ? (
        <label>
          for the look of a rating
          <select value={rating ?? ""} onChange={(event) => void setShape(rated(event.currentTarget.value))}>
            <option value="">any</option>
            {[...ratings].reverse().map((one) => <option key={one} value={one}>{one}</option>)}
          </select>
        </label>
      ) : null}
      {rating === null ? null : (
        <label>
          with the weight
          <input type="range" min="0" max="1" step="0.1" value={store.weight.value} onChange={(event) => void setShape({ weight: Number(event.currentTarget.value) })} />
        </label>
      )}
    </>
  );
}

const rated = (word: string): { rating: number | null } => ({ rating: word === "" ? null : Number(word) });

/** What of it is in use: each can be ended here. */
export function InUse(): JSX.Element | null {
  const rating = store.rated.value;
  const left = store.left.value;
  if (!left.length && !store.foreign.value && rating === null) return null;
  const weight = store.weight.value === WEIGHT ? "" : `, weight ${store.weight.value}`;
  return (
    <ul class="in-use" aria-label="How they are asked for">
      {left.map((flag) => (
        <Ended key={flag.name} text={`without ${nameOf(flag)}`} title={KINDS[flag.kind]} end={() => toggleFlag(flag.name)} />
      ))}
      {store.foreign.value ? <Ended text="any language" title="multilingual model" end={() => setShape({ multilingual: false })} /> : null}
      {rating === null ? null : <Ended text={`rated ${rating}${weight}`} title="aesthetic rating" end={() => setShape({ rating: null })} />}
    </ul>
  );
}

function Ended({ text, title, end }: { text: string; title: string; end: () => Promise<void> }): JSX.Element {
  return (
    <li class="chip" title={title}>
      <span>{text}</span>
      <button type="button" aria-label={`No longer ${text}`} onClick={() => void end()}><Cross /></button>
    </li>
  );
}
