/** The page begins: what is served, what the address says, what the window tells. */

import { computed, effect } from "@preact/signals";
import { render } from "preact";
import { restore } from "./address";
import * as api from "./api";
import { countOthers, search } from "./asking";
import { App } from "./components/app";
import { begin } from "./editing";
import { listen } from "./keyboard";
import { asksSomething, readLink } from "./link";
import { flush, loadMarks } from "./marking";
import { clearTrouble, trouble } from "./notices";
import { addFiles, loadPreviews } from "./pictures";
import * as store from "./store";
import { watch } from "./working";

async function open(): Promise<void> {
  try {
    store.info.value = await api.info();
    clearTrouble();
  } catch (error) {
    return trouble(error, () => void open());
  }
  await show();
  void watch();
  void flush();
}

/** Show what the address says. */
async function show(): Promise<void> {
  let wrong: unknown = null;
  try {
    await restore();
  } catch (error) {
    wrong = error;
  }
  store.opened.value = true;
  await search();
  if (wrong !== null) trouble(wrong, null);
  void countOthers();
}

/** Whether the collection is still the one that was asked. */
async function look(): Promise<void> {
  if (document.visibilityState !== "visible" || !store.info.peek()) return;
  void watch();
  try {
    store.info.value = await api.info();
    const now = store.collection.peek()?.index_rev;
    if (store.revision.peek() !== null && now !== undefined && now !== store.revision.peek()) store.stale.value = true;
  } catch {
    // what is asked next says what is wrong
  }
}

function dropped(event: DragEvent): void {
  event.preventDefault();
  const id = event.dataTransfer?.getData("application/x-clipsieve-item");
  const files = event.dataTransfer?.files;
  if (id) void begin({ image: id });
  else if (files?.length) void addFiles(files, "positive", true);
}

function pasted(event: ClipboardEvent): void {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  void addFiles(files, "positive", true);
}

store.opened.value = !asksSomething(readLink(location.search, location.hash));
render(<App />, document.getElementById("page") as HTMLElement);
loadPreviews();
listen();
addEventListener("popstate", () => void show());
document.addEventListener("visibilitychange", () => void look());
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", dropped);
document.addEventListener("paste", pasted);

const name = computed(() => store.current.value?.name);
const collectionId = computed(() => store.collection.value?.id);
effect(() => {
  if (name.value !== undefined && collectionId.value !== undefined) void loadMarks(collectionId.value, name.value);
});
effect(() => {
  if (name.value !== undefined || store.start.value || collectionId.value === undefined) return;
  void api.start(collectionId.value).then((found) => (store.start.value = found), () => {});
});
effect(() => {
  if (store.strip.value === null && store.info.value) void flush(); // what could not be told before
});
effect(() => {
  document.title = name.value === undefined ? "clipsieve" : `${name.value} · clipsieve`;
});

void open();
