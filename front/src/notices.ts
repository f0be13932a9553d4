/** Words to the user that come and go: toasts, the strip for trouble, what screen readers are told. */

import { ApiError, reachable } from "./api";
import * as store from "./store";

const SECONDS = 10;
let timer = 0;

export function toast(text: string, ...actions: { label: string; act: () => void }[]): void {
  clearTimeout(timer);
  store.toast.value = { text, actions };
  timer = window.setTimeout(untoast, SECONDS * 1000);
}

export function untoast(): void {
  clearTimeout(timer);
  store.toast.value = null;
}

export function announce(text: string): void {
  store.announced.value = text;
}

let probe = 0;

/** Show what went wrong above what is there. `again` is tried by itself where waiting may help. */
export function trouble(error: unknown, again: (() => void) | null): void {
  clearTimeout(probe);
  const known = error instanceof ApiError ? error : null;
  const kind = known?.kind === "unreachable" ? "offline" : known?.kind === "busy" ? "busy" : "error";
  const text = error instanceof Error ? error.message : String(error);
  store.strip.value = { text, request: known?.request ?? "", kind, retry: again };
  if (kind !== "error" && again) wait(again, 1);
}

/** Say above what is there what it is, and offer to ask again. */
export function note(text: string, again: () => void): void {
  clearTimeout(probe);
  store.strip.value = { text, request: "", kind: "busy", retry: again };
}

export function clearTrouble(): void {
  clearTimeout(probe);
  store.strip.value = null;
}

/** Ask every so often, and less and less so, whether the service is there; then do it again. */
function wait(again: () => void, seconds: number): void {
  probe = window.setTimeout(() => {
    void reachable().then((there) => (there ? again() : wait(again, Math.min(30, 2 * seconds))));
  }, seconds * 1000);
}
