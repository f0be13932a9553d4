/** Moving about: which item is open, where the cursor is, what is chosen. */

import type { Hit } from "./answers";
import { remember } from "./address";
import type { Side } from "./classes";
import { addExamples, begin } from "./editing";
import { endReview } from "./marking";
import { toast } from "./notices";
import * as store from "./store";
import { type Move, moved } from "./windowing";

export function openItem(id: string): void {
  const was = store.item.peek();
  store.item.value = id;
  remember(was === null);
}

export function closeItem(): void {
  if (store.item.peek() === null) return;
  store.item.value = null;
  remember(false);
}

/** The pictures that are like this one. */
export function similar(id: string): void {
  endReview();
  void begin({ image: id });
}

/** The next picture of the grid, in the dialog. */
export function step(by: 1 | -1): void {
  const all = store.shown.peek();
  const at = all.findIndex((hit) => hit.id === store.item.peek());
  const to = all[at + by];
  if (at < 0 || !to) return;
  store.cursor.value = at + by;
  openItem(to.id);
}

export function toggleChosen(id: string): void {
  const chosen = new Set(store.allChosen.peek() ? store.shown.peek().map((hit) => hit.id) : store.chosen.peek());
  store.allChosen.value = false;
  if (!chosen.delete(id)) chosen.add(id);
  store.chosen.value = chosen;
}

/** Choose all from one place of the grid to another. */
export function chooseRange(from: number, to: number): void {
  const ids = store.shown.peek().slice(Math.min(from, to), Math.max(from, to) + 1).map((hit) => hit.id);
  store.chosen.value = new Set([...store.chosen.peek(), ...ids]);
}

/** What an action is about: what is chosen, else the picture under the cursor or in the dialog. */
export function subjects(): Hit[] {
  const all = store.shown.peek();
  const open = store.item.peek();
  if (open !== null) return all.filter((hit) => hit.id === open);
  if (store.allChosen.peek()) return all;
  const chosen = store.chosen.peek();
  if (chosen.size) return all.filter((hit) => chosen.has(hit.id));
  const one = all[store.cursor.peek()];
  return one ? [one] : [];
}

export const MOST_AT_ONCE = 20;

/** Make examples of what is chosen, or of the picture under the cursor. */
export async function useAsExamples(side: Side): Promise<void> {
  const about = subjects();
  if (about.length > MOST_AT_ONCE) return toast(`At most ${MOST_AT_ONCE} become examples at once; choose fewer.`);
  await addExamples(side, about.map((hit) => ({ image: hit.id })));
}

/** Move the cursor over the grid, and choose what it passes if `extend`. */
export function moveCursor(to: Move, extend: boolean): void {
  const layout = store.layout.peek();
  const all = store.shown.peek();
  if (!layout || !all.length) return;
  const from = store.cursor.peek();
  // The first arrow only shows where the cursor is.
  const there = to === "home" || to === "end" || document.activeElement?.closest("[data-at]") != null;
  const rows = Math.floor((innerHeight - 220) / layout.row);
  const at = there ? moved(from, to, all.length, layout.columns, rows) : from;
  if (extend) {
    store.anchor.value ??= from;
    chooseRange(store.anchor.value, at);
  } else store.anchor.value = null;
  store.cursor.value = at;
  focusCursor();
}

/** Bring the picture under the cursor into sight, and the focus to it. */
export function focusCursor(): void {
  store.sought.value++;
}
