/** Classes as files, and as sets that the service keeps by name. */

import { remember } from "./address";
import * as api from "./api";
import { readSet, toDirectAI, writeSet } from "./classes";
import { replaceSet } from "./editing";
import { toast, trouble } from "./notices";
import * as store from "./store";

export async function openFile(file: File): Promise<void> {
  try {
    const set = readSet(await file.text());
    store.stored.value = null;
    await replaceSet(set);
  } catch (error) {
    trouble(new Error(`${file.name}: ${error instanceof Error ? error.message : String(error)}`), null);
  }
}

export function saveFile(): void {
  const set = store.set.peek();
  if (!set.classes.length) return toast("There is no class to save yet.");
  download(fileName("json"), writeSet(set));
}

/** As DirectAI's service takes it, and word of what that leaves out. */
export function saveForDirectAI(): void {
  const { body, dropped } = toDirectAI(store.set.peek());
  download(fileName("directai.json"), JSON.stringify(body, null, 2) + "\n");
  if (dropped.length) toast(`Saved without ${dropped.join("; without ")}.`);
}

export async function openStored(name: string): Promise<void> {
  const collection = store.collection.peek();
  if (!collection) return;
  try {
    const [value, known] = await Promise.all([api.storedSet(collection.id, name), api.sets(collection.id)]);
    const set = readSet(JSON.stringify(value));
    const revision = known.find((one) => one.name === name)?.revision ?? "";
    store.stored.value = { name, revision, text: writeSet(set) };
    await replaceSet(set);
  } catch (error) {
    trouble(error, () => void openStored(name));
  }
}

/** Store the set under the name; over what is there only if it is what was opened. */
export async function storeAs(name: string): Promise<boolean> {
  const collection = store.collection.peek();
  if (!collection) return false;
  const text = writeSet(store.set.peek());
  const before = store.stored.peek();
  try {
    const revision = before?.name === name ? before.revision : null;
    const done = await api.store(collection.id, name, text, revision);
    store.stored.value = { name, revision: done.revision, text };
    remember(false);
    toast(`Stored as “${name}”. The address of this page leads to it.`);
    return true;
  } catch (error) {
    trouble(error, null);
    return false;
  }
}

/** Let the browser save a text as a file. */
function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  fetchFile(url, name);
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Let the browser save what is at an address; the service names it unless `name` does. */
export function fetchFile(url: string, name = ""): void {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
}

function fileName(suffix: string): string {
  const name = store.stored.peek()?.name ?? store.set.peek().classes[0]?.name ?? "classes";
  return `${name.replace(/[^\w.-]+/g, "-").slice(0, 60)}.${suffix}`;
}
