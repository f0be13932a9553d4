/** Matched, rejected and below the line, with their counts; how they are shown; review; export. */

import type { JSX } from "preact";
import { setShape, setView, toggleBoxes } from "../editing";
import type { Sort, View } from "../link";
import { endReview, reviewNext } from "../marking";
import * as store from "../store";
import { count } from "../words";
import { ExportMenu } from "./exporting";
import { Menu } from "./menu";
import { Offers } from "./offers";

const VIEWS: [View, string][] = [["matched", "Matched"], ["rejected", "Rejected"], ["below", "Below"]];
const SORTS: [Sort, string][] = [["score", "score"], ["margin", "margin"], ["new", "newest"]];

export function Tabs(): JSX.Element | null {
  if (!store.current.value) return null;
  const counts = store.counts.value;
  const reviewing = store.review.value !== null;
  return (
    <div class="tabs">
      <div role="tablist" aria-label="Which pictures">
        {VIEWS.map(([view, label]) => {
          const selected = !reviewing && store.view.value === view;
          return (
            <button type="button" role="tab" key={view} aria-selected={selected} aria-controls="pictures" onClick={() => void setView(view)}>
              {label} <span class="n">{counts ? `${store.estimated.value ? "≈" : ""}${count(counts[view])}` : "…"}</span>
            </button>
          );
        })}
        <button type="button" role="tab" aria-selected={reviewing} aria-controls="pictures" title="Pictures that teach the most when you say right or wrong (R)" onClick={() => (reviewing ? endReview() : void reviewNext())}>
          Review
        </button>
      </div>
      <div class="how">
        <Shape />
        <ExportMenu />
      </div>
    </div>
  );
}

function Shape(): JSX.Element {
  const collection = store.collection.value;
  const sort = SORTS.find(([one]) => one === store.sort.value)?.[1] ?? "";
  const boxed = collection?.boxes === true || store.hits.value.some((hit) => hit.boxes?.length);
  const mute = store.foreign.value;
  return (
    <Menu label={<>by {sort}</>} title="How they are shown">
      <p class="head">In order of</p>
      {SORTS.map(([one, label]) => (
        <button type="button" key={one} aria-current={one === store.sort.value} onClick={() => void setShape({ sort: one })}>{label}</button>
      ))}
      {store.current.value?.negative.length ? (
        <label class="check" title="A picture that is nearer a negative example is left out, instead of ranked lower">
          <input type="checkbox" checked={store.veto.value === "hard"} onChange={() => void setShape({ veto: store.veto.value === "hard" ? "soft" : "hard" })} /> leave out what is nearer a negative
        </label>
      ) : null}
      {collection && collection.modalities.length > 1 ? (
        <>
          <p class="head">Compared by</p>
          <button type="button" aria-current={store.modality.value === "image"} onClick={() => void setShape({ modality: "image" })}>pictures</button>
          <button type="button" aria-current={store.modality.value === "text"} onClick={() => void setShape({ modality: "text" })}>captions</button>
        </>
      ) : null}
      {collection?.duplicates ? (
        <label class="check"><input type="checkbox" checked={store.dedup.value} onChange={() => void setShape({ dedup: !store.dedup.value })} /> one of near-duplicates</label>
      ) : null}
      {boxed ? (
        <label class="check" title={mute ? "The detector reads no other languages" : undefined}>
          <input type="checkbox" checked={store.boxes.value && !mute} disabled={mute} onChange={toggleBoxes} /> boxes
        </label>
      ) : null}
      <Offers />
    </Menu>
  );
}
