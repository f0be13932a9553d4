/** The bar at the top: which collection, the search box, jobs, help. */

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ask, setCollection, textOf } from "../editing";
import { addFiles } from "../pictures";
import * as store from "../store";
import { lives } from "../working";
import { count } from "../words";
import { Camera } from "./icons";
import { Menu } from "./menu";
import { SetMenu } from "./sets";

export function Top(): JSX.Element {
  const box = useRef<HTMLInputElement>(null);
  const text = textOf(store.current.value);
  useEffect(() => {
    // Of a link that asks something one looks at the pictures, and the keys are theirs.
    if (store.opened.peek()) box.current?.focus();
  }, []);
  useEffect(() => {
    if (box.current) box.current.value = text;
  }, [text, store.current.value?.name]);

  function submit(event: Event): void {
    event.preventDefault();
    box.current?.blur();
    void ask(box.current?.value ?? "");
  }

  const running = store.jobs.value.filter(lives).length;
  return (
    <header class="top">
      <Which />
      <form class="search" role="search" onSubmit={submit}>
        <input id="q" ref={box} type="search" autocomplete="off" placeholder="Describe what you are looking for" aria-label="Search" />
        <label class="camera" title="Search by an image; or paste or drop one">
          <Camera />
          <input type="file" accept="image/*" aria-label="Search by an image" onChange={picked} />
        </label>
        <button type="submit" class="main">Search</button>
      </form>
      <nav class="tools" aria-label="Tools">
        <SetMenu />
        <button type="button" class="quiet" aria-expanded={store.jobsOpen.value} onClick={toggleJobs}>
          Jobs{running ? <b class="badge">{running}</b> : null}
        </button>
        <button type="button" class="quiet round" title="Keys" aria-label="Keys" onClick={() => (store.helping.value = true)}>?</button>
      </nav>
    </header>
  );
}

function Which(): JSX.Element {
  const all = store.info.value?.collections ?? [];
  const one = store.collection.value;
  if (!one) return <span class="which" />;
  const said = (
    <>
      <b>{one.id}</b> <span class="faint">{count(one.count)}</span>
    </>
  );
  if (all.length < 2) return <span class="which">{said}</span>;
  return (
    <Menu label={said} class="quiet which" title="Another collection">
      {all.map((other) => (
        <button type="button" key={other.id} aria-current={other === one} onClick={() => void setCollection(other.id)}>
          {other.id} <span class="faint">{count(other.count)}</span>
        </button>
      ))}
    </Menu>
  );
}

function picked(event: Event): void {
  const input = event.currentTarget as HTMLInputElement;
  const files = [...(input.files ?? [])];
  input.value = "";
  void addFiles(files, "positive", true);
}

function toggleJobs(): void {
  store.jobsOpen.value = !store.jobsOpen.value;
}
