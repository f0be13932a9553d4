/** Which key does what. Pure. */

import type { Move } from "./windowing";

export type Action =
  | { do: "move"; move: Move; extend: boolean }
  | { do: "search" | "open" | "select" | "select-all" | "right" | "wrong" | "similar" | "boxes" | "review" }
  | { do: "example"; side: "positive" | "negative" }
  | { do: "lower" | "raise" | "undo" | "save" | "close" | "help" }
  | { do: "tab"; view: "matched" | "rejected" | "below" };

const MOVES: Record<string, Move> = {
  ArrowLeft: "left",
  ArrowRight: "right",
  ArrowUp: "up",
  ArrowDown: "down",
  Home: "home",
  End: "end",
  PageUp: "page-up",
  PageDown: "page-down",
};

const PLAIN: Record<string, Action> = {
  "/": { do: "search" },
  Enter: { do: "open" },
  " ": { do: "select" },
  y: { do: "right" },
  n: { do: "wrong" },
  e: { do: "example", side: "positive" },
  s: { do: "similar" },
  b: { do: "boxes" },
  r: { do: "review" },
  "[": { do: "lower" },
  "]": { do: "raise" },
  "1": { do: "tab", view: "matched" },
  "2": { do: "tab", view: "rejected" },
  "3": { do: "tab", view: "below" },
  "?": { do: "help" },
  Escape: { do: "close" },
};

export interface Pressed {
  key: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  shiftKey: boolean;
}

/** What a key means. `typing`: the focus is where single keys are letters. */
export function actionOf(pressed: Pressed, typing: boolean): Action | null {
  const { key, shiftKey } = pressed;
  if (pressed.altKey) return null;
  if (pressed.ctrlKey || pressed.metaKey) {
    if (key === "s") return { do: "save" };
    if (typing) return null;
    return key === "a" ? { do: "select-all" } : key === "z" ? { do: "undo" } : null;
  }
  if (key === "Escape") return { do: "close" };
  if (typing) return null;
  const move = MOVES[key];
  if (move) return { do: "move", move, extend: shiftKey };
  if (shiftKey && key.toLowerCase() === "e") return { do: "example", side: "negative" };
  return PLAIN[key.length === 1 ? key.toLowerCase() : key] ?? null;
}

export const HELP: [keys: string, what: string][] = [
  ["/", "to the search box"],
  ["← ↑ → ↓ Home End", "move among the pictures"],
  ["Enter", "open"],
  ["Space", "select; with Shift and arrows a range"],
  ["Ctrl A", "select all in this view"],
  ["Y / N", "it is right / it is wrong"],
  ["E / Shift E", "make it an example / one of what it is not"],
  ["S", "find similar pictures"],
  ["R", "say right or wrong of what teaches most"],
  ["[ / ]", "lower / raise the line"],
  ["1 2 3", "Matched, Rejected, Below"],
  ["B", "boxes"],
  ["Ctrl Z", "undo"],
  ["Ctrl S", "save the classes as a file"],
  ["Esc", "close, cancel or clear"],
];
