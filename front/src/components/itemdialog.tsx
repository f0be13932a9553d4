/** One item, large: its boxes, why it stands where it does, what is like it, what is known of it. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { Explained, Hit, Item, Weighed } from "../answers";
import * as api from "../api";
import { leftOut, question } from "../asking";
import { EMPTY } from "../classes";
import { addExample } from "../editing";
import { mark } from "../marking";
import { searchCrop } from "../pictures";
import { closeItem, openItem, similar, step } from "../showing";
import * as store from "../store";
import { bytes, nameOf, score, signed } from "../words";
import { Boxes } from "./boxes";
import { Named } from "./example";
import { Check, Cross, Left, Minus, Plus, Right, Similar } from "./icons";
import { Toast } from "./notices";

const NEIGHBOURS = 8;

export function ItemDialog(): JSX.Element | null {
  const id = store.item.value;
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (id !== null && !dialog.current?.open) dialog.current?.showModal();
    if (id === null) dialog.current?.close();
  }, [id]);
  return (
    <dialog ref={dialog} class="item" aria-label="One picture" onClose={closeItem}
      onClick={(event) => event.target === dialog.current && closeItem()}>
      {id === null ? null : <Whole key={id} id={id} />}
      {id === null ? null : <Toast />}
    </dialog>
  );
}

function Whole({ id }: { id: string }): JSX.Element {
  const explained = useSignal<Explained | null>(null);
  const item = useSignal<Item | null>(null);
  const like = useSignal<Hit[]>([]);
  const wrong = useSignal("");
  const collection = store.collection.value?.id ?? "";
  const one = store.current.value;
  const hit = store.shown.value.find((other) => other.id === id);

  useEffect(() => {
    let gone = false;
    const take = <T,>(asked: Promise<T>, then: (answer: T) => void): void => {
      void asked.then((answer) => gone || then(answer), (error: Error) => gone || (wrong.value = error.message));
    };
    take(api.item(collection, id), (found) => (item.value = found));
    if (one) {
      const { without: _, ...asked } = question(store.set.peek(), one);
      take(api.post("/api/v1/explain", { ...asked, id }), (found) => (explained.value = found));
    }
    const alike = { ...EMPTY, classes: [{ name: "like", positive: [{ image: id }], negative: [], threshold: null }] };
    const asked = { collection, set: alike as unknown as Record<string, unknown>, limit: NEIGHBOURS + 1, ...leftOut() };
    take(api.post("/api/v1/search", asked), (found) => {
      like.value = found.hits.filter((other) => other.id !== id).slice(0, NEIGHBOURS);
    });
    return () => {
      gone = true;
    };
  }, [id, store.set.value]);

  const key = item.value?.key ?? hit?.key ?? "";
  const verdict = store.marks.value.get(id);
  const about = { id, key, thumb: "", w: null, h: null, score: 0, margin: null, pos: { ex: "", score: 0 }, neg: null } as Hit;
  return (
    <div class="whole">
      <figure>
        <img src={api.imageUrl(collection, id, 1024)} alt={nameOf(key)} />
        {hit?.boxes?.length && store.boxes.value ? <Boxes hit={hit} onCrop={(box, picture) => void searchCrop(box, picture)} /> : null}
        <button type="button" class="step back" aria-label="The one before" onClick={() => step(-1)}><Left /></button>
        <button type="button" class="step on" aria-label="The next one" onClick={() => step(1)}><Right /></button>
      </figure>
      <div class="about">
        <header>
          <h2>{nameOf(key)}</h2>
          <button type="button" class="quiet round" aria-label="Close" onClick={closeItem}><Cross /></button>
        </header>
        {wrong.value ? <p class="wrong-text" role="alert">{wrong.value}</p> : null}
        {one ? (
          <p class="acts">
            <button type="button" class="quiet right" aria-pressed={verdict === "right"} onClick={() => mark([hit ?? about], "right")}><Check />Right</button>
            <button type="button" class="quiet wrong" aria-pressed={verdict === "wrong"} onClick={() => mark([hit ?? about], "wrong")}><Cross />Wrong</button>
            <button type="button" class="quiet" onClick={() => void addExample("positive", { image: id })}><Plus />Looks like</button>
            <button type="button" class="quiet" onClick={() => void addExample("negative", { image: id })}><Minus />Not like</button>
            <button type="button" class="quiet" onClick={() => similar(id)}><Similar />Similar</button>
          </p>
        ) : (
          <p class="acts"><button type="button" class="quiet" onClick={() => similar(id)}><Similar />Similar</button></p>
        )}
        {explained.value ? <Bars found={explained.value} threshold={one?.threshold ?? null} /> : null}
        {like.value.length ? (
          <>
            <h3>Looks much like</h3>
            <ul class="strip">
              {like.value.map((other) => (
                <li key={other.id}><button type="button" title={`${nameOf(other.key)}, ${score(other.score)}`} onClick={() => openItem(other.id)}><img src={api.resolved(other.thumb)} alt={nameOf(other.key)} /></button></li>
              ))}
            </ul>
          </>
        ) : null}
        {item.value ? <Known item={item.value} /> : null}
      </div>
    </div>
  );
}

/** A bar for each example: how much the item is like it. */
function Bars({ found, threshold }: { found: Explained; threshold: number | null }): JSX.Element {
  const most = Math.max(0.01, threshold ?? 0, ...[...found.positive, ...found.negative].map((one) => Math.abs(one.score)));
  const bar = (one: Weighed, side: string): JSX.Element => (
    <li key={JSON.stringify(one.ex)} class={side}>
      <span class="what"><Named example={one.ex} /></span>
      <span class="track"><i style={{ width: `${(100 * Math.max(0, one.score)) / most}%` }} />{threshold === null ? null : <em style={{ left: `${Math.min(100, (100 * Math.max(0, threshold)) / most)}%` }} title="the line" />}</span>
      <span class="n">{score(one.score)}</span>
    </li>
  );
  const rejected = found.margin !== null && found.margin <= 0;
  const verdict = found.accepted ? "It matches" : rejected ? "It is rejected" : "It is below the line";
  return (
    <>
      <h3>{verdict}{found.margin === null ? null : <span class="faint"> margin {signed(found.margin)}</span>}</h3>
      <ul class="bars">
        {found.positive.map((one) => bar(one, "positive"))}
        {found.negative.map((one) => bar(one, "negative"))}
      </ul>
    </>
  );
}

function Known({ item }: { item: Item }): JSX.Element {
  const { width, height, size, ...others } = item.metadata;
  const hidden = ["content_hash", "has_caption", "key", "mtime"];
  const rows = Object.entries(others).filter(([name, value]) => value !== null && value !== "" && !hidden.includes(name));
  if (typeof width === "number" && typeof height === "number") rows.push(["pixels", `${width} × ${height}`]);
  if (typeof size === "number") rows.push(["size", bytes(size)]);
  return (
    <dl class="known">
      {rows.map(([name, value]) => (
        <div key={name}><dt>{name.replaceAll("_", " ")}</dt><dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd></div>
      ))}
    </dl>
  );
}
