/** One picture: what it is, why it is here, and what can be said of it. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import type { Hit } from "../answers";
import { resolved } from "../api";
import { removeExample } from "../editing";
import { mark } from "../marking";
import { similar } from "../showing";
import * as store from "../store";
import { likely, nameOf, quoted, score, signed } from "../words";
import { Boxes } from "./boxes";
import { Named } from "./example";
import { Check, Cross, Similar } from "./icons";
import { Picture } from "./picture";

interface Props {
  hit: Hit;
  at: number;
  column: number;
  near: boolean;
  onPick: (at: number, event: MouseEvent) => void;
}

export function Cell({ hit, at, column, near, onPick }: Props): JSX.Element {
  const broken = useSignal(false);
  const verdict = store.marks.value.get(hit.id);
  const here = store.cursor.value === at;
  const chosen = store.allChosen.value || store.chosen.value.has(hit.id);
  const name = nameOf(hit.key);
  const classes = ["cell", verdict ?? "", chosen ? "chosen" : "", near ? "near" : ""].join(" ");
  return (
    <div class={classes} role="gridcell" aria-colindex={column + 1} aria-selected={chosen} tabindex={here ? 0 : -1} data-at={at} data-id={hit.id}
      onClick={(event) => onPick(at, event)} onFocus={() => (store.cursor.value = at)}>
      <div class="frame" draggable onDragStart={(event) => event.dataTransfer?.setData("application/x-clipsieve-item", hit.id)}>
        {broken.value ? (
          <p class="broken">{name}<br /><span class="faint">The picture cannot be shown.</span></p>
        ) : (
          <Picture src={resolved(hit.thumb)} alt={name} decoding="async" draggable={false} onError={() => (broken.value = true)} />
        )}
        {store.boxes.value && hit.boxes?.length && !broken.value ? <Boxes hit={hit} /> : null}
        {verdict ? <span class={`mark ${verdict}`}>{verdict === "right" ? <Check /> : <Cross />}<span class="unseen">{verdict}</span></span> : null}
        <div class="acts">
          <button type="button" tabindex={-1} class="right" title="Right (Y)" aria-label={`Right: ${name}`} aria-pressed={verdict === "right"} onClick={act(() => mark([hit], "right"))}><Check /></button>
          <button type="button" tabindex={-1} class="wrong" title="Wrong (N)" aria-label={`Wrong: ${name}`} aria-pressed={verdict === "wrong"} onClick={act(() => mark([hit], "wrong"))}><Cross /></button>
          <button type="button" tabindex={-1} title="Similar (S)" aria-label={`Similar to ${name}`} onClick={act(() => similar(hit.id))}><Similar /></button>
        </div>
      </div>
      <Why hit={hit} near={near} />
    </div>
  );

  function act(what: () => void): (event: MouseEvent) => void {
    return (event) => {
      event.stopPropagation();
      what();
    };
  }
}

/** The line that says why. */
function Why({ hit, near }: { hit: Hit; near: boolean }): JSX.Element {
  const { pos, neg } = hit;
  const rejected = hit.odds === undefined && neg !== null && neg.score >= pos.score;
  if (rejected) {
    return (
      <div class="why">
        <p><span class="score">{score(neg.score)}</span> <Named example={neg.ex} /></p>
        <p class="faint">beats {score(pos.score)} <Named example={pos.ex} /></p>
        <button type="button" tabindex={-1} class="drop" title={`Take ${quoted(neg.ex)} off the list of what it is not`}
          onClick={(event) => {
            event.stopPropagation();
            void removeExample("negative", neg.ex);
          }}>not this one</button>
      </div>
    );
  }
  return (
    <div class="why">
      <p>
        <span class="score" title={hit.odds === undefined ? undefined : "How likely it is right, by what you marked"}>{hit.odds === undefined ? score(hit.score) : likely(hit.odds)}</span>{" "}
        {hit.margin === null ? null : <span class={near ? "margin near" : "margin"} title="How far ahead of what it must not be taken for">{signed(hit.margin)}{near ? <b title="a close call"> !</b> : null}</span>}
      </p>
      <p class="faint"><Named example={pos.ex} />{near && neg ? <> over <Named example={neg.ex} /></> : null}</p>
    </div>
  );
}
