/** A button that opens a short list, with the browser's own popover: it closes by Escape and by a click elsewhere. */

import type { ComponentChildren, JSX } from "preact";
import { useId, useRef } from "preact/hooks";
import { Down } from "./icons";

interface Props {
  label: ComponentChildren;
  title?: string;
  class?: string;
  disabled?: boolean;
  onOpen?: () => void;
  children: ComponentChildren;
}

export function Menu(props: Props): JSX.Element {
  const id = useId();
  const list = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);

  function place(event: ToggleEvent): void {
    if (event.newState !== "open" || !button.current || !list.current) return;
    props.onOpen?.();
    const at = button.current.getBoundingClientRect();
    const wide = list.current.offsetWidth;
    const high = list.current.offsetHeight;
    const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - wide - 8));
    const fits = at.bottom + high + 12 < innerHeight;
    Object.assign(list.current.style, { left: `${left}px`, top: `${fits ? at.bottom + 6 : Math.max(8, at.top - high - 6)}px` });
  }

  return (
    <>
      <button ref={button} type="button" class={props.class ?? "quiet"} popovertarget={id} title={props.title} disabled={props.disabled}>
        {props.label}
        <Down />
      </button>
      <div ref={list} id={id} class="menu" popover="auto" onToggle={place} onClick={(event) => close(event, list.current)}>
        {props.children}
      </div>
    </>
  );
}

function close(event: MouseEvent, list: HTMLElement | null): void {
  if ((event.target as HTMLElement).closest("button, a, label[data-close]")) list?.hidePopover();
}
