/** Changes of the classes: each asks anew, says what it changed, and can be taken back. */

import { remember } from "./address";
import * as api from "./api";
import { countOthers, search } from "./asking";
import {
  type ClassSet,
  EMPTY,
  type Example,
  type MetaClass,
  type Side,
  firstThreshold,
  freeName,
  isText,
  mixed,
  same,
  withClass,
  withExample,
  withoutExample,
} from "./classes";
import { snap, scaleOf, stepOf } from "./histogram";
import { type Modality, type Sort, type Veto, type View, nameFor } from "./link";
import { toast, trouble, untoast } from "./notices";
import * as store from "./store";
import { pushUndo, undo } from "./undoing";
import { count } from "./words";

/** What the search box was given: a text, or the address of an image. */
export async function ask(text: string): Promise<void> {
  const wanted = text.trim();
  if (!wanted) return;
  if (!/^https?:\/\/\S+$/.test(wanted)) return begin(wanted);
  const collection = store.collection.peek();
  try {
    const found = await api.post("/api/v1/fetch", { url: wanted, collection: collection?.id ?? null });
    await begin({ image: found.id });
  } catch (error) {
    trouble(error, () => void ask(text));
  }
}

/** A new class of one example. It takes the place of one that nobody has named. */
export async function begin(example: Example): Promise<void> {
  const set = store.set.peek();
  const one = store.current.peek();
  const line = firstThreshold(set.classes.length ? set : EMPTY, store.collection.peek()?.count ?? 0);
  const replaced = one !== null && !isNamed(one);
  const others = replaced ? set.classes.filter((other) => other !== one) : set.classes;
  const base = others.length ? set : EMPTY;
  const name = freeName({ ...base, classes: others }, nameFor(example));
  const made: MetaClass = { name, positive: [example], negative: [], threshold: line };
  const at = replaced && others.length ? store.active.peek() : others.length;
  const classes = [...others.slice(0, at), made, ...others.slice(at)];
  store.view.value = "matched";
  store.item.value = null;
  await put(background({ ...base, classes }), at);
}

/** Whether somebody gave the class a name of its own. */
export function isNamed(one: MetaClass): boolean {
  const [first] = one.positive;
  const given = first === undefined ? "" : nameFor(first);
  return one.name !== given && !(one.name.startsWith(`${given} `) && /^\d+$/.test(one.name.slice(given.length + 1)));
}

export const addExample = (side: Side, example: Example): Promise<void> => addExamples(side, [example]);

/** One change, however many they are. */
export async function addExamples(side: Side, examples: Example[]): Promise<void> {
  const one = store.current.peek();
  const [first] = examples;
  if (first === undefined) return;
  if (!one) return side === "positive" ? begin(first) : undefined;
  const made = examples.reduce((grown, example) => withExample(grown, side, example), one);
  const several = examples.length > 1;
  if (made === one) return toast(several ? "They are examples already." : "It is one of the examples already.");
  if (!made.positive.length) return toast("It is all that the class looks like; add another example to that first.");
  const was = store.set.peek();
  const set = background(withClass(was, store.active.peek(), made));
  const converted = set.calibration !== was.calibration;
  const after = several ? `after these ${examples.length} examples` : "after this example";
  await edit(set, side === "positive" ? "more" : "less", after, converted);
}

export async function removeExample(side: Side, example: Example): Promise<void> {
  const one = store.current.peek();
  if (!one) return;
  const made = withoutExample(one, side, example);
  if (!made.positive.length) return removeClass(store.active.peek());
  const set = withClass(store.set.peek(), store.active.peek(), made);
  await edit(set, side === "positive" ? "less" : "more", "without this example", false);
}

/** Texts can be typed anew in place. */
export async function replaceExample(side: Side, old: Example, text: string): Promise<void> {
  const one = store.current.peek();
  const wanted = text.trim();
  if (!one || !wanted || wanted === old) return;
  const examples = one[side].map((other) => (same(other, old) ? wanted : other));
  const name = isNamed(one) || !same(one.positive[0] ?? "", old) ? one.name : freeName(store.set.peek(), wanted);
  await put(withClass(store.set.peek(), store.active.peek(), { ...one, name, [side]: examples }), store.active.peek());
}

/** Draw the line there. */
export async function setThreshold(at: number | null): Promise<void> {
  const one = store.current.peek();
  if (!one || one.threshold === at) return;
  store.set.value = withClass(store.set.peek(), store.active.peek(), { ...one, threshold: at });
  remember(false);
  await search();
}

let nudging = 0;

/** A step of the line up or down; what is asked waits until the steps end. */
export function nudge(steps: number): void {
  const one = store.current.peek();
  if (!one) return;
  const scale = scaleOf(store.set.peek().calibration);
  const at = snap(scale, (store.threshold.peek() ?? scale.lo) + steps * 5 * stepOf(scale));
  store.dragged.value = at;
  clearTimeout(nudging);
  nudging = window.setTimeout(() => {
    store.dragged.value = null;
    void setThreshold(at);
  }, 300);
}

export async function addClass(name: string): Promise<void> {
  const set = store.set.peek();
  const wanted = name.trim();
  if (!wanted) return;
  const line = firstThreshold(set, store.collection.peek()?.count ?? 0);
  const made = { name: freeName(set, wanted), positive: [wanted], negative: [], threshold: line };
  store.view.value = "matched";
  await put({ ...set, classes: [...set.classes, made] }, set.classes.length);
}

export async function removeClass(i: number): Promise<void> {
  const was = snapshot();
  const gone = store.set.peek().classes[i];
  const classes = store.set.peek().classes.filter((_, j) => j !== i);
  pushUndo(() => bringBack(was));
  store.view.value = "matched";
  await put(classes.length ? { ...store.set.peek(), classes } : EMPTY, Math.max(0, Math.min(i, classes.length - 1)));
  if (gone) toast(`“${gone.name}” is gone.`, { label: "Undo", act: undo });
}

export function rename(name: string): void {
  const one = store.current.peek();
  const wanted = name.trim();
  if (!one || !wanted || wanted === one.name) return;
  const set = store.set.peek();
  const made = { ...one, name: freeName({ ...set, classes: set.classes.filter((c) => c !== one) }, wanted) };
  store.set.value = withClass(set, store.active.peek(), made);
  remember(false);
}

export async function choose(i: number): Promise<void> {
  store.view.value = "matched";
  await put(store.set.peek(), i);
}

/** Show another set. */
export async function replaceSet(set: ClassSet): Promise<void> {
  const was = snapshot();
  pushUndo(() => bringBack(was));
  store.view.value = "matched";
  await put(set, 0);
}

export async function setView(view: View): Promise<void> {
  store.view.value = view;
  await shownAnew();
}

interface Shape {
  sort: Sort;
  veto: Veto;
  dedup: boolean;
  modality: Modality;
  multilingual: boolean;
  without: string[];
  rating: number | null;
  weight: number;
}

export async function setShape(changed: Partial<Shape>): Promise<void> {
  if (changed.sort !== undefined) store.sort.value = changed.sort;
  if (changed.veto !== undefined) store.veto.value = changed.veto;
  if (changed.dedup !== undefined) store.dedup.value = changed.dedup;
  if (changed.modality !== undefined) store.modality.value = changed.modality;
  if (changed.multilingual !== undefined) store.multilingual.value = changed.multilingual;
  if (changed.without !== undefined) store.without.value = changed.without;
  if (changed.rating !== undefined) store.rating.value = changed.rating;
  if (changed.weight !== undefined) store.weight.value = changed.weight;
  await shownAnew();
}

export function toggleBoxes(): void {
  store.boxes.value = !store.boxes.peek();
  remember(false);
  // They are asked for only where they are shown.
  if (store.boxes.peek() && store.collection.peek()?.boxes === true) void search();
}

export async function setCollection(id: string): Promise<void> {
  store.collectionId.value = id;
  store.stored.value = null;
  store.start.value = null;
  store.item.value = null;
  unchoose();
  remember(true);
  await search();
}

export function unchoose(): void {
  store.chosen.value = new Set();
  store.allChosen.value = false;
}

async function shownAnew(): Promise<void> {
  unchoose();
  remember(false);
  await search();
}

async function put(set: ClassSet, at: number): Promise<void> {
  untoast();
  store.set.value = set;
  store.active.value = at;
  unchoose();
  remember(true);
  await search();
  void countOthers();
}

interface Snapshot {
  set: ClassSet;
  active: number;
  view: View;
}

function snapshot(): Snapshot {
  return { set: store.set.peek(), active: store.active.peek(), view: store.view.peek() };
}

async function bringBack(was: Snapshot): Promise<void> {
  store.view.value = was.view;
  await put(was.set, was.active);
}

/** A change by one example, after which more or fewer items match, never both. */
async function edit(set: ClassSet, direction: "more" | "less", what: string, converted: boolean): Promise<void> {
  const was = snapshot();
  const before = store.counts.peek()?.matched;
  pushUndo(() => bringBack(was));
  await put(set, was.active);
  const after = store.counts.peek()?.matched;
  if (store.status.peek() !== "ready" || before === undefined || after === undefined) return;
  const more = direction === "more" ? Math.max(0, after - before) : 0;
  const less = direction === "less" ? Math.max(0, before - after) : 0;
  const said = converted
    ? "Texts and images meet on a common scale, so the lines were drawn anew."
    : `+${count(more)} −${count(less)} ${what}`;
  toast(said, { label: "Undo", act: undo });
}

/** Where texts and images meet in a set of cosines, it becomes one that measures how unusual a likeness is. */
function background(set: ClassSet): ClassSet {
  if (set.calibration !== "none" || !mixed(set)) return set;
  const made: ClassSet = { ...set, calibration: "background" };
  const line = firstThreshold(made, store.collection.peek()?.count ?? 0);
  return { ...made, classes: made.classes.map((one) => ({ ...one, threshold: line })) };
}

/** Leave out what is flagged by that, or no longer. */
export function toggleFlag(name: string): Promise<void> {
  const was = store.without.peek();
  return setShape({ without: was.includes(name) ? was.filter((one) => one !== name) : [...was, name] });
}

/** The first text of a class, for the search box. */
export function textOf(one: MetaClass | null): string {
  return one?.positive.find(isText) ?? "";
}
