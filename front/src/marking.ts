/** What somebody says of items: right or wrong. It is shown at once; what the service cannot take yet waits here. */

import type { Hit, Verdict } from "./answers";
import * as api from "./api";
import { question } from "./asking";
import type { MetaClass } from "./classes";
import { addExample } from "./editing";
import { announce, clearTrouble, toast, trouble } from "./notices";
import * as store from "./store";
import { pushUndo, undo } from "./undoing";
import { plural } from "./words";

const WAITING = "clipsieve.marks";
const BATCH = 10_000;

interface Waiting {
  collection: string;
  item: string;
  class: string;
  verdict: Verdict | null;
}

/** Get what was said before of the class that is shown. */
export async function loadMarks(collection: string, name: string): Promise<void> {
  const blank: ReadonlyMap<string, Verdict> = (store.marks.value = new Map());
  try {
    const known = await api.marksOf(collection, name);
    if (store.current.peek()?.name !== name) return;
    const found = new Map(known.map((mark) => [mark.item, mark.verdict]));
    for (const one of waiting()) {
      if (one.collection !== collection || one.class !== name) continue;
      if (one.verdict) found.set(one.item, one.verdict);
      else found.delete(one.item);
    }
    // What was said while this was on its way is newer.
    store.marks.value = store.marks.peek() === blank ? found : new Map([...found, ...store.marks.peek()]);
  } catch {
    // what is asked next says what is wrong
  }
}

/** Say it of these items; saying it again takes it back. */
export function mark(items: Hit[], verdict: Verdict): void {
  const collection = store.collection.peek()?.id;
  const name = store.current.peek()?.name;
  if (collection === undefined || name === undefined) return;
  const known = store.marks.peek();
  const again = items.length > 0 && items.every((hit) => known.get(hit.id) === verdict);
  const before = items.map((hit): [string, Verdict | null] => [hit.id, known.get(hit.id) ?? null]);
  const ids = items.map((hit) => hit.id);
  const said = again ? null : verdict;
  say(collection, name, ids.map((id) => [id, said]));
  pushUndo(() => say(collection, name, before));
  const what = said === null ? "unmarked" : `marked ${said}`;
  announce(`${plural(items.length, "picture")} ${what}`);
  const undoing = { label: "Undo", act: undo };
  const view = store.view.peek();
  const [only] = items;
  if (only && items.length === 1 && said === "wrong" && (view === "matched" || store.review.peek())) {
    const use = () => void addExample("negative", { image: only.id });
    toast("Marked wrong.", { label: "Use as “not like”", act: use }, undoing);
  } else if (only && items.length === 1 && said === "right" && view !== "matched" && !store.review.peek()) {
    const use = () => void addExample("positive", { image: only.id });
    toast("Marked right.", { label: "Use as “looks like”", act: use }, undoing);
  } else toast(`${plural(items.length, "picture")} ${what}.`, undoing);
}

function say(collection: string, name: string, pairs: [string, Verdict | null][]): void {
  if (store.collection.peek()?.id === collection && store.current.peek()?.name === name) {
    const known = new Map(store.marks.peek());
    for (const [id, verdict] of pairs) {
      if (verdict) known.set(id, verdict);
      else known.delete(id);
    }
    store.marks.value = known;
  }
  keep([...waiting(), ...pairs.map(([item, verdict]) => ({ collection, item, class: name, verdict }))]);
  void flush();
}

let flushing: Promise<void> | null = null;

/** Tell the service what waits to be told, in order. */
export function flush(): Promise<void> {
  flushing ??= tell().finally(() => (flushing = null));
  return flushing;
}

async function tell(): Promise<void> {
  for (let all = waiting(); all.length; all = waiting()) {
    const [first] = all as [Waiting];
    const alike = (one: Waiting): boolean =>
      one.collection === first.collection && (one.verdict === null) === (first.verdict === null);
    const end = all.findIndex((one) => !alike(one));
    const batch = all.slice(0, Math.min(BATCH, end < 0 ? all.length : end));
    try {
      if (first.verdict === null) {
        await api.unmark(first.collection, batch.map((one) => ({ item: one.item, class: one.class })));
      } else {
        const said = batch.map((one) => ({ item: one.item, class: one.class, verdict: one.verdict as Verdict }));
        await api.mark(first.collection, said);
      }
      keep(waiting().slice(batch.length));
      if (store.strip.peek()?.retry === retry) clearTrouble();
    } catch (error) {
      const refused = error instanceof api.ApiError && error.kind === "refused";
      if (refused) {
        keep(waiting().slice(batch.length)); // it would be refused again
        const one = store.current.peek();
        if (one) void loadMarks(first.collection, one.name);
      }
      trouble(error, refused ? null : retry);
      return;
    }
  }
}

function retry(): void {
  void flush();
}

/** So many are asked about at a time; what they teach decides about the next ones. */
const PAGE = 10;
const TAUGHT = 200;

/** Show what to say something of next: pictures of all ranks, which teach more than those nearest the line. */
export async function reviewNext(): Promise<void> {
  const one = store.current.peek();
  if (!one) return;
  await flush();
  try {
    const asked = { ...question(store.set.peek(), one), class: one.name, limit: PAGE };
    const found = await api.post("/api/v1/suggest", { ...asked, asking: "spread" });
    const both = found.marks.right > 0 && found.marks.wrong > 0;
    const learned = both ? await api.post("/api/v1/learn", unrated(asked)) : null;
    const review = learned?.review ?? found.review;
    if (!reviewed(one, { ...found, review, wins: learned?.wins ?? false, taught: false })) return;
    announce(`${plural(review.length, "picture")} to review`);
  } catch (error) {
    trouble(error, () => void reviewNext());
  }
}

/** Show the pictures that are right by all that was said. */
export async function showTaught(): Promise<void> {
  const one = store.current.peek();
  const was = store.review.peek();
  if (!one || !was) return;
  await flush();
  try {
    const asked = { ...question(store.set.peek(), one), class: one.name, limit: TAUGHT };
    const found = await api.post("/api/v1/learn", unrated(asked));
    const none = { ex: one.positive[0] ?? "", score: 0 };
    const hits = found.hits.map((hit): Hit => ({ ...hit, score: hit.odds, margin: null, pos: hit.pos ?? none }));
    if (!reviewed(one, { ...was, marks: found.marks, wins: found.wins, taught: true, review: hits })) return;
    announce(`${plural(hits.length, "picture")} as your marks teach`);
  } catch (error) {
    trouble(error, () => void showTaught());
  }
}

/** Marks teach what is right, wherever the line is and however beautiful it is. */
function unrated<T extends api.Question>({ rating: _, rating_weight: __, ...asked }: T) {
  return { ...asked, threshold: null };
}

/** Show it, unless something else is asked by now. */
function reviewed(one: MetaClass, review: store.Review): boolean {
  if (store.current.peek() !== one) return false;
  store.review.value = review;
  store.cursor.value = 0;
  store.chosen.value = new Set();
  store.allChosen.value = false;
  return true;
}

export function endReview(): void {
  store.review.value = null;
  store.cursor.value = 0;
}

function waiting(): Waiting[] {
  try {
    return JSON.parse(localStorage.getItem(WAITING) ?? "[]") as Waiting[];
  } catch {
    return [];
  }
}

function keep(all: Waiting[]): void {
  try {
    if (all.length) localStorage.setItem(WAITING, JSON.stringify(all));
    else localStorage.removeItem(WAITING);
  } catch {
    // a full or closed store: then they are told at once or not at all
  }
}
