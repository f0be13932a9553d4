/** Classes as files and stored sets: open, save, store. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import * as api from "../api";
import { openFile, openStored, saveFile, saveForDirectAI, storeAs } from "../filing";
import * as store from "../store";
import { Menu } from "./menu";

export function SetMenu(): JSX.Element {
  const known = useSignal<string[]>([]);
  const none = !store.set.value.classes.length;

  function look(): void {
    const collection = store.collection.peek();
    if (collection) void api.sets(collection.id).then((all) => (known.value = all.map((one) => one.name)), () => {});
  }

  return (
    <Menu label="Classes" onOpen={look}>
      <label class="item" data-close>
        Open a file…
        <input type="file" accept=".json,application/json" aria-label="Open a file of classes" onChange={opened} />
      </label>
      <button type="button" disabled={none} onClick={saveFile}>Save as a file <kbd>Ctrl S</kbd></button>
      <button type="button" disabled={none} onClick={saveForDirectAI}>Save for DirectAI</button>
      <form class="store" onSubmit={stored}>
        <input name="name" required pattern="[A-Za-z0-9_\-]{1,64}" placeholder="name-of-the-set" aria-label="Store here as"
          title="letters, digits, dashes and underscores" defaultValue={store.stored.value?.name ?? ""} />
        <button type="submit" disabled={none}>Store here</button>
      </form>
      {known.value.length ? <p class="head">Stored here</p> : null}
      {known.value.map((name) => (
        <button type="button" key={name} onClick={() => void openStored(name)}>{name}</button>
      ))}
    </Menu>
  );
}

function opened(event: Event): void {
  const input = event.currentTarget as HTMLInputElement;
  const [file] = input.files ?? [];
  if (file) void openFile(file);
  input.value = "";
}

function stored(event: Event): void {
  event.preventDefault();
  const form = event.currentTarget as HTMLFormElement;
  void storeAs(String(new FormData(form).get("name")));
}
