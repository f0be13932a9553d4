/** The class that is shown: its name, what it looks like, what it must not be taken for. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import type { MetaClass, Side } from "../classes";
import { addClass, addExample, rename } from "../editing";
import { addFiles } from "../pictures";
import * as store from "../store";
import { Chip } from "./example";
import { Plus } from "./icons";

export function Compose(): JSX.Element | null {
  const one = store.current.value;
  if (!one) return null;
  return (
    <section class="compose" aria-label="The class">
      <Name one={one} />
      <Row side="positive" one={one} label="Looks like" />
      <Row side="negative" one={one} label="But not like" />
    </section>
  );
}

function Name({ one }: { one: MetaClass }): JSX.Element {
  const several = store.set.value.classes.length > 1;
  const naming = useSignal(false);

  function done(event: Event): void {
    rename((event.currentTarget as HTMLInputElement).value);
    naming.value = false;
  }

  return (
    <div class="name">
      {naming.value ? (
        <input aria-label="Name of the class" value={one.name} autofocus onBlur={done} onKeyDown={(event) => {
          if (event.key === "Enter") event.currentTarget.blur();
        }} ref={(input) => input?.select()} />
      ) : (
        <h1 title="Rename">
          <button type="button" aria-label={`Rename ${one.name}`} onClick={() => (naming.value = true)}>{one.name}</button>
        </h1>
      )}
      {several ? null : <Adding label="New class" hint="what it looks like" add={(text) => void addClass(text)} />}
    </div>
  );
}

/** A button that becomes a field. */
export function Adding(props: { label: string; hint: string; add: (text: string) => void }): JSX.Element {
  const open = useSignal(false);

  function done(event: Event): void {
    event.preventDefault();
    const input = (event.currentTarget as HTMLFormElement).elements[0] as HTMLInputElement;
    if (input.value.trim()) props.add(input.value);
    open.value = false;
  }

  if (!open.value) {
    return (
      <button type="button" class="add" onClick={() => (open.value = true)}>
        <Plus />
        {props.label}
      </button>
    );
  }
  return (
    <form class="adding" onSubmit={done}>
      <input aria-label={props.label} placeholder={props.hint} ref={(input) => input?.focus()}
        onBlur={(event) => event.currentTarget.value.trim() || (open.value = false)}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          open.value = false;
        }} />
    </form>
  );
}

function Row({ side, one, label }: { side: Side; one: MetaClass; label: string }): JSX.Element {
  const over = useSignal(false);

  function dropped(event: DragEvent): void {
    event.preventDefault();
    event.stopPropagation();
    over.value = false;
    const id = event.dataTransfer?.getData("application/x-clipsieve-item");
    if (id) void addExample(side, { image: id });
    else if (event.dataTransfer?.files.length) void addFiles(event.dataTransfer.files, side, false);
  }

  return (
    <div class={`examples ${side} ${over.value ? "over" : ""}`} onDragOver={(event) => {
      event.preventDefault();
      over.value = true;
    }} onDragLeave={() => (over.value = false)} onDrop={dropped}>
      <span class="label" id={`label-${side}`}>{label}</span>
      <ul aria-labelledby={`label-${side}`}>
        {one[side].map((example) => (
          <Chip key={typeof example === "string" ? example : example.image} side={side} example={example} />
        ))}
      </ul>
      <Adding label="example" hint={side === "positive" ? "looks like…" : "but not like…"} add={(text) => void addExample(side, text)} />
      <label class="add" title="An image as example">
        image
        <input type="file" accept="image/*" multiple aria-label={`An image: ${label}`} onChange={(event) => {
          const files = [...(event.currentTarget.files ?? [])];
          event.currentTarget.value = "";
          void addFiles(files, side, false);
        }} />
      </label>
    </div>
  );
}
