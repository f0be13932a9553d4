/** What is said to the user: the strip for trouble, the toast, the keys, and what screen readers hear. */

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { search } from "../asking";
import { HELP } from "../keys";
import { clearTrouble, untoast } from "../notices";
import * as store from "../store";
import { Cross } from "./icons";

export function Strip(): JSX.Element | null {
  const strip = store.strip.value;
  if (strip) {
    return (
      <div class={`strip ${strip.kind}`} role="alert">
        <p>
          {strip.kind === "offline" ? "The service cannot be reached; trying again. What you do here is kept." : strip.text}
          {store.status.value === "failed" && store.hits.value.length ? " What is shown was found before." : ""}
          {strip.request ? <small> Request {strip.request}</small> : null}
        </p>
        {strip.retry ? <button type="button" class="quiet" onClick={strip.retry}>Retry</button> : null}
        <button type="button" class="quiet round" aria-label="Dismiss" onClick={clearTrouble}><Cross /></button>
      </div>
    );
  }
  if (!store.stale.value || !store.current.value) return null;
  return (
    <div class="strip stale" role="status">
      <p>The collection has changed since these were found.</p>
      <button type="button" class="quiet" onClick={() => void search()}>Refresh</button>
    </div>
  );
}

export function Toast(): JSX.Element {
  const toast = store.toast.value;
  return (
    <div class="toast-place" role="status">
      {toast ? (
        <div class="toast" key={toast.text}>
          <span>{toast.text}</span>
          {toast.actions.map(({ label, act }) => (
            <button type="button" key={label} onClick={() => {
              untoast();
              act();
            }}>{label}</button>
          ))}
        </div>
      ) : null}
    </div>
  );
}

export function Announced(): JSX.Element {
  return <p id="status" class="unseen" role="status">{store.announced.value}</p>;
}

export function Help(): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (store.helping.value) dialog.current?.showModal();
    else dialog.current?.close();
  }, [store.helping.value]);
  return (
    <dialog ref={dialog} class="help" aria-label="Keys" onClose={() => (store.helping.value = false)} onClick={(event) => event.target === dialog.current && (store.helping.value = false)}>
      <h2>Keys</h2>
      <dl>
        {HELP.map(([keys, what]) => (
          <div key={keys}><dt><kbd>{keys}</kbd></dt><dd>{what}</dd></div>
        ))}
      </dl>
      <form method="dialog"><button class="quiet">Close</button></form>
    </dialog>
  );
}
