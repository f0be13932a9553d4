/** What keys do, wherever the focus is. */

import { cancel } from "./asking";
import { nudge, setView, toggleBoxes, unchoose } from "./editing";
import { saveFile } from "./filing";
import { actionOf } from "./keys";
import { endReview, mark, reviewNext } from "./marking";
import { untoast } from "./notices";
import { focusCursor, moveCursor, openItem, similar, step, subjects, toggleChosen, useAsExamples } from "./showing";
import * as store from "./store";
import { undo } from "./undoing";

/** Returns what stops listening. */
export function listen(): () => void {
  document.addEventListener("keydown", pressed);
  return () => document.removeEventListener("keydown", pressed);
}

function pressed(event: KeyboardEvent): void {
  if (event.defaultPrevented || store.helping.peek()) return;
  const focus = event.target instanceof Element ? event.target : null;
  const typing = focus?.closest("input:not([type=checkbox]):not([type=file]), textarea, select, [contenteditable]") != null;
  const action = actionOf(event, typing);
  if (!action) return;
  const inDialog = store.item.peek() !== null;
  // A button under the focus takes Enter and Space itself.
  const onButton = focus?.closest("button, a, label, summary, [popover]") != null;
  if (onButton && (action.do === "open" || action.do === "select")) return;
  if (focus?.closest("[popover]") || (focus?.closest("[role=slider]") && action.do === "move")) return;
  if (act(action, inDialog)) event.preventDefault();
}

function act(action: NonNullable<ReturnType<typeof actionOf>>, inDialog: boolean): boolean {
  const one = store.shown.peek()[store.cursor.peek()];
  const asked = store.current.peek() !== null;
  switch (action.do) {
    case "help":
      store.helping.value = true;
      return true;
    case "undo":
      undo();
      return true;
    case "save":
      saveFile();
      return true;
    case "close":
      return close(inDialog);
    case "move":
      if (inDialog && (action.move === "left" || action.move === "right")) step(action.move === "left" ? -1 : 1);
      else if (!inDialog && asked) moveCursor(action.move, action.extend);
      else return false;
      return true;
    case "search":
      if (inDialog) return false;
      document.querySelector<HTMLInputElement>("#q")?.select();
      return true;
  }
  if (!asked) return false;
  switch (action.do) {
    case "open":
      if (one && !inDialog) openItem(one.id);
      return !inDialog;
    case "select":
      if (one && !inDialog) toggleChosen(one.id);
      return !inDialog;
    case "select-all":
      if (inDialog) return false;
      store.chosen.value = new Set();
      store.allChosen.value = true;
      return true;
    case "right":
    case "wrong":
      say(action.do, inDialog);
      return true;
    case "example":
      void useAsExamples(action.side);
      return true;
    case "similar": {
      const [first] = subjects();
      if (first) similar(first.id);
      return true;
    }
    case "lower":
    case "raise":
      nudge(action.do === "lower" ? -1 : 1);
      return true;
    case "tab":
      if (!inDialog) void setView(action.view);
      return true;
    case "boxes":
      toggleBoxes();
      return true;
    case "review":
      if (!inDialog) void reviewNext();
      return true;
  }
}

function say(verdict: "right" | "wrong", inDialog: boolean): void {
  const about = subjects();
  const chosen = store.allChosen.peek() || store.chosen.peek().size > 0;
  if (store.allChosen.peek() && store.next.peek() !== null) return; // those that nobody has seen
  if (about.length) mark(about, verdict);
  if (store.review.peek() && !inDialog && !chosen) {
    store.cursor.value = Math.min(store.cursor.peek() + 1, store.shown.peek().length - 1);
    focusCursor();
  }
}

/** The one thing that is uppermost. */
function close(inDialog: boolean): boolean {
  if (inDialog || document.querySelector("[popover]:popover-open")) return false; // the browser does
  if (store.status.peek() === "loading") cancel();
  else if (store.chosen.peek().size || store.allChosen.peek()) unchoose();
  else if (store.jobsOpen.peek()) store.jobsOpen.value = false;
  else if (store.review.peek()) endReview();
  else if (store.toast.peek()) untoast();
  else return false;
  return true;
}
