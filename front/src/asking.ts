/** Questions to the service: the hits, more of them as one scrolls, and how the whole collection falls under a class. */

import type { Found } from "./answers";
import * as api from "./api";
import { type ClassSet, type MetaClass, toQuestion } from "./classes";
import { type Histogram, countsAt, scaleOf } from "./histogram";
import type { Sort, Veto, View } from "./link";
import { announce, clearTrouble, note, trouble } from "./notices";
import * as store from "./store";
import { count, plural } from "./words";

const FIRST = 100;
const MORE = 500;
/** A picture of work is shown for what takes longer. */
const SLOW_MS = 150;

let asked = 0;
let running: AbortController | null = null;
let fetching: Promise<void> | null = null;
/** Until the counts of what was found are there. */
let counted: Promise<void> = Promise.resolve();
/** Hits that are to be here; it may rise while some are fetched. */
let wanted = 0;
let histogramOf = "";

/** What is asked now, without what is a matter of showing it. */
export function question(set: ClassSet, one: MetaClass): api.Question {
  return {
    collection: store.collection.peek()?.id ?? null,
    set: toQuestion(set, { ...one, threshold: null }),
    threshold: one.threshold,
    modality: store.modality.peek(),
    ...used(),
  };
}

/** What is made use of, of all that the collection is served with. */
function used(): api.Used {
  const rating = store.rated.peek();
  return {
    ...(store.foreign.peek() ? { multilingual: true } : {}),
    ...(rating === null ? {} : { rating, rating_weight: store.weight.peek() }),
    ...leftOut(),
  };
}

/** What is as if it were not there. */
export function leftOut(): Pick<api.Used, "without"> {
  const names = store.left.peek().map((one) => one.name);
  return names.length ? { without: names } : {};
}

/** Whether to ask where in pictures a class is seen. A detector reads no other languages. */
export const boxed = (): boolean =>
  store.boxes.peek() && store.collection.peek()?.boxes === true && !store.foreign.peek();

/** Ask what the page says. What is shown stays until there is an answer, and stays if there is none. */
export async function search(): Promise<void> {
  const one = store.current.peek();
  const mine = ++asked;
  running?.abort();
  store.review.value = null;
  if (!one) {
    running = null;
    store.status.value = "idle";
    clear();
    return;
  }
  const controller = (running = new AbortController());
  fetching = null;
  store.status.value = "loading";
  const timer = window.setTimeout(() => (store.slow.value = mine === asked), SLOW_MS);
  const body = question(store.set.peek(), one);
  try {
    const found = await find({ ...body, ...shape(), limit: FIRST }, controller.signal);
    if (mine !== asked) return;
    show(found);
    clearTrouble();
    store.status.value = "ready";
    const counting = distribution(body, controller.signal, mine);
    counted = counting.catch(() => {});
    await counting;
    if (mine === asked) tell();
  } catch (error) {
    if (mine !== asked || controller.signal.aborted) return;
    store.status.value = "failed";
    trouble(error, () => void search());
  } finally {
    clearTimeout(timer);
    if (mine === asked) store.slow.value = false;
  }
}

/** Collections whose boxes the service cannot tell: it was started without their detector. */
const boxless = new Set<string | null>();

/** Hits, with boxes where the service can tell them. */
async function find(body: api.Search, signal?: AbortSignal): Promise<Found> {
  const boxes = body.boxes === true && !boxless.has(body.collection ?? null);
  try {
    return await api.post("/api/v1/search", { ...body, boxes }, signal);
  } catch (error) {
    if (!boxes || !(error instanceof api.ApiError) || error.kind !== "refused" || signal?.aborted) throw error;
    const found = await api.post("/api/v1/search", { ...body, boxes: false }, signal);
    boxless.add(body.collection ?? null); // the question is all right without them
    return found;
  }
}

/** Let go of what is being asked. */
export function cancel(): void {
  if (store.status.peek() !== "loading") return;
  asked++;
  running?.abort();
  store.slow.value = false;
  store.status.value = store.hits.peek().length ? "ready" : "idle";
  announce("Cancelled.");
  if (store.hits.peek().length) note("Cancelled: these pictures were found before.", () => void search());
}

/** Get hits until there are so many, or no more. */
export function more(upTo: number): Promise<void> {
  wanted = upTo;
  fetching ??= fetchMore().finally(() => (fetching = null));
  return fetching;
}

async function fetchMore(): Promise<void> {
  const mine = asked;
  const one = store.current.peek();
  await counted; // what is in sight comes first
  while (one && mine === asked && store.next.peek() !== null && store.hits.peek().length < wanted) {
    try {
      const page = { ...question(store.set.peek(), one), ...shape(), limit: MORE, cursor: store.next.peek() };
      const found = await find(page, running?.signal);
      if (mine !== asked) return;
      const seen = new Set(store.hits.peek().map((hit) => hit.id));
      store.hits.value = [...store.hits.peek(), ...found.hits.filter((hit) => !seen.has(hit.id))];
      store.next.value = found.next;
    } catch (error) {
      if (mine !== asked || running?.signal.aborted) return;
      if (error instanceof api.ApiError && error.kind === "refused") {
        store.next.value = null;
        store.stale.value = true; // a cursor is of one commit
      } else trouble(error, () => void more(wanted));
      return;
    }
  }
}

/** Counts of another class than the one that is shown, once each. */
export async function countOthers(): Promise<void> {
  const set = store.set.peek();
  if (set.classes.length < 2) return;
  for (const one of set.classes) {
    const key = keyOf(set, one);
    if (store.matchedBy.peek().has(key)) continue;
    try {
      const found = await api.post("/api/v1/distribution", { ...question(set, one), veto: store.veto.peek(), bins: 2 });
      keepCount(key, found.counts.matched);
    } catch {
      return; // the list goes without; what is asked next says what is wrong
    }
  }
}

export function keyOf(set: ClassSet, one: MetaClass): string {
  return JSON.stringify([question(set, one), store.veto.peek()]);
}

function keepCount(key: string, matched: number): void {
  store.matchedBy.value = new Map(store.matchedBy.peek()).set(key, matched);
}

async function distribution(body: api.Question, signal: AbortSignal, mine: number): Promise<void> {
  const { threshold: _, ...whole } = body; // the line is drawn here
  const alike = { ...whole, veto: store.veto.peek() };
  const key = JSON.stringify([alike, store.revision.peek()]);
  const set = store.set.peek();
  if (key !== histogramOf) {
    const found = await api.post("/api/v1/distribution", { ...alike, ...scaleOf(set.calibration) }, signal);
    if (mine !== asked) return;
    histogramOf = key;
    const bins = found.hist.bins;
    const { lo, hi } = found.hist;
    store.histogram.value = {
      ...{ lo: Number(lo.toFixed(4)), hi: Number(hi.toFixed(4)), bins: bins.length },
      won: bins.map((bin) => bin[0]),
      rivalled: bins.map((bin) => bin[1]),
      ranked: found.hist.ranked,
    };
    store.estimated.value = found.estimated;
  }
  const one = store.current.peek();
  if (one) keepCount(keyOf(set, one), countsAt(store.histogram.peek() as Histogram, one.threshold).matched);
}

function show(found: Found): void {
  store.hits.value = found.hits;
  store.remarks.value = found.notes;
  store.next.value = found.next;
  store.claim.value = found.claim;
  store.recall.value = found.recall;
  store.took.value = found.timings_ms["total"] ?? 0;
  store.revision.value = found.index_rev;
  store.stale.value = false;
  store.cursor.value = 0;
}

function shape(): { view: View; sort: Sort; veto: Veto; dedup: boolean; boxes: boolean } {
  const collection = store.collection.peek();
  const dedup = store.dedup.peek() && collection?.duplicates === true;
  return { view: store.view.peek(), sort: store.sort.peek(), veto: store.veto.peek(), dedup, boxes: boxed() };
}

function tell(): void {
  const found = store.counts.peek();
  const view = store.view.peek();
  if (!found) return;
  const words = { matched: "result", rejected: "rejected", below: "below the line" };
  const n = found[view];
  announce(view === "matched" ? plural(n, words.matched) : `${count(n)} ${words[view]}`);
}

function clear(): void {
  store.hits.value = [];
  store.remarks.value = [];
  store.next.value = null;
  store.histogram.value = null;
  histogramOf = "";
  clearTrouble();
}
