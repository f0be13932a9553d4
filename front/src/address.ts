/** The address bar: written from what is shown, and what is shown read from it. */

import * as api from "./api";
import { type ClassSet, EMPTY, type Example, firstThreshold, isText, readSet, writeSet } from "./classes";
import { type Link, classOf, onlyExample, pack, readLink, unpack, writeLink } from "./link";
import * as store from "./store";

/** Longer ones are cut by some programs that pass links on. */
export const MOST_LETTERS = 8000;
export let tooLong = false;

let order: Promise<unknown> = Promise.resolve();

/** Write the address of what is shown. `push` makes a step that Back takes back. */
export function remember(push: boolean): void {
  const link = linkNow();
  const set = store.set.value;
  const plain = link.text !== null || link.image !== null || link.stored !== null || !set.classes.length;
  order = order.then(async () => {
    const packed = plain ? null : await pack(set);
    tooLong = packed !== null && packed.length > MOST_LETTERS;
    const query = plain ? link.text : (set.classes[store.active.peek()]?.positive.find(isText) ?? null);
    const url = writeLink({ ...link, text: query, packed: tooLong ? null : packed });
    if (url === `${location.search}${location.hash}`) return;
    if (push) history.pushState(null, "", url);
    else history.replaceState(null, "", url);
  });
}

/** Once every address so far is written. */
export const settled = (): Promise<unknown> => order;

function linkNow(): Link {
  const set = store.set.peek();
  const only = onlyExample(set);
  const stored = store.stored.peek();
  const asStored = stored !== null && writeSet(set) === stored.text;
  const one = store.current.peek();
  return {
    collection: store.collectionId.peek(),
    text: !asStored && only !== null && isText(only) ? only : null,
    image: !asStored && only !== null && !isText(only) ? only.image : null,
    url: null,
    stored: asStored ? stored.name : null,
    named: one && (asStored || set.classes.length > 1) ? one.name : null,
    packed: null,
    threshold: one?.threshold ?? null,
    view: store.view.peek(),
    sort: store.sort.peek(),
    veto: store.veto.peek(),
    dedup: store.dedup.peek(),
    boxes: store.boxes.peek(),
    modality: store.modality.peek(),
    multilingual: store.multilingual.peek(),
    without: store.without.peek(),
    rating: store.rating.peek(),
    weight: store.weight.peek(),
    item: store.item.peek(),
  };
}

/** Show what the address says; nothing is asked yet but a stored set. An Error says what of it cannot be had. */
export async function restore(): Promise<void> {
  const link = readLink(location.search, location.hash);
  const all = store.info.peek()?.collections ?? [];
  const known = all.some((one) => one.id === link.collection);
  store.collectionId.value = known ? link.collection : (all[0]?.id ?? null);
  store.view.value = link.view;
  store.sort.value = link.sort;
  store.veto.value = link.veto;
  store.dedup.value = link.dedup;
  store.boxes.value = link.boxes;
  store.modality.value = link.modality;
  store.multilingual.value = link.multilingual;
  store.without.value = link.without;
  store.rating.value = link.rating;
  store.weight.value = link.weight;
  store.item.value = link.item;
  store.review.value = null;
  store.chosen.value = new Set();
  store.allChosen.value = false;
  store.cursor.value = 0;
  store.stored.value = null;
  let set = EMPTY;
  try {
    set = await setOf(link);
    if (link.collection !== null && !known) throw new Error(`There is no collection “${link.collection}” here.`);
    const missing = notOffered(link);
    if (missing.length) throw new Error(`The link asks for what “${store.collection.peek()?.id}” is served without: ${missing.join(", ")}.`);
  } finally {
    const named = set.classes.findIndex((one) => one.name === link.named);
    const at = Math.max(0, named);
    const line = link.threshold;
    const classes = set.classes.map((one, i) => (i === at && line !== null ? { ...one, threshold: line } : one));
    store.set.value = { ...set, classes };
    store.active.value = at;
  }
}

/** What the link asks for and the collection does not offer, in words: it must not seem to be done. */
function notOffered(link: Link): string[] {
  const known = store.left.peek().map((one) => one.name);
  const missing = link.without.filter((name) => !known.includes(name)).map((name) => `the flag “${name}”`);
  if (link.rating !== null && store.rated.peek() === null) missing.push(`the rating ${link.rating}`);
  if (link.multilingual && !store.foreign.peek()) missing.push("other languages");
  return missing;
}

async function setOf(link: Link): Promise<ClassSet> {
  const collection = store.collection.peek();
  if (!collection) return EMPTY;
  if (link.packed) return unpack(link.packed);
  if (link.stored) {
    const [value, known] = await Promise.all([
      api.storedSet(collection.id, link.stored),
      api.sets(collection.id),
    ]);
    const set = readSet(JSON.stringify(value));
    const revision = known.find((one) => one.name === link.stored)?.revision ?? "";
    store.stored.value = { name: link.stored, revision, text: writeSet(set) };
    return set;
  }
  let example: Example | null = link.text ? link.text : link.image ? { image: link.image } : null;
  if (!example && link.url) {
    example = { image: (await api.post("/api/v1/fetch", { url: link.url, collection: collection.id })).id };
  }
  return example ? { ...EMPTY, classes: [classOf(example, firstThreshold(EMPTY, collection.count))] } : EMPTY;
}
