/** The pictures. Only those near the window are in the page. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Hit } from "../answers";
import { more } from "../asking";
import { chooseRange, openItem, toggleChosen } from "../showing";
import * as store from "../store";
import { type Layout, layoutOf, shownOf } from "../windowing";
import { Cell } from "./cell";

const CAPTION = 50;
const AHEAD = 200;
/** The closest few by margin are pointed out. */
const NEAR_SHARE = 0.06;

export function Grid(): JSX.Element {
  const area = useRef<HTMLDivElement>(null);
  const width = useSignal(0);
  const top = useSignal(0);
  const high = useSignal(innerHeight);
  const wantsFocus = useRef(false);

  const all = store.shown.value;
  const total = totalOf(all);
  const layout = layoutOf(width.value || 800, width.value < 520 ? 150 : 190, width.value < 520 ? 10 : 16, CAPTION);
  const window_ = shownOf(layout, total, top.value, high.value);

  useLayoutEffect(() => {
    const element = area.current as HTMLDivElement;
    const measure = (): void => {
      width.value = element.clientWidth;
      top.value = Math.max(0, -element.getBoundingClientRect().top);
      high.value = innerHeight;
    };
    const watcher = new ResizeObserver(measure);
    watcher.observe(element);
    addEventListener("scroll", measure, { passive: true });
    addEventListener("resize", measure);
    measure();
    return () => {
      watcher.disconnect();
      removeEventListener("scroll", measure);
      removeEventListener("resize", measure);
    };
  }, []);

  useEffect(() => {
    if (!store.review.value && window_.last + AHEAD > all.length && store.next.value) void more(window_.last + AHEAD);
  }, [window_.last, all.length, store.next.value]);

  useLayoutEffect(() => {
    if (!store.sought.value) return;
    wantsFocus.current = true;
    reveal(area.current, layout, store.cursor.peek());
  }, [store.sought.value]);

  useLayoutEffect(() => {
    if (!wantsFocus.current) return;
    const cell = area.current?.querySelector<HTMLElement>(`[data-at="${store.cursor.peek()}"]`);
    if (!cell) return;
    cell.focus({ preventScroll: true });
    wantsFocus.current = false;
  });

  useEffect(() => {
    store.layout.value = layout;
  }, [layout.columns, layout.row]);

  function pick(at: number, event: MouseEvent): void {
    const hit = all[at];
    if (!hit) return;
    if (event.shiftKey) chooseRange(store.cursor.peek(), at);
    else if (event.ctrlKey || event.metaKey || store.chosen.peek().size) toggleChosen(hit.id);
    else openItem(hit.id);
    store.cursor.value = at;
  }

  const least = nearest(all);
  const rows: JSX.Element[] = [];
  for (let i = window_.first; i < window_.last; i += layout.columns) {
    const cells: JSX.Element[] = [];
    for (let at = i; at < Math.min(i + layout.columns, window_.last); at++) {
      const hit = all[at];
      const near = hit?.margin != null && hit.margin > 0 && hit.margin <= least;
      cells.push(hit ? <Cell key={hit.id} hit={hit} at={at} column={at - i} near={near} onPick={pick} /> : <Blank key={`blank-${at}`} />);
    }
    rows.push(<div class="row" role="row" key={i} aria-rowindex={i / layout.columns + 1}>{cells}</div>);
  }
  const busy = store.status.value === "loading";
  const style = {
    "--cell": `${layout.cell}px`,
    "--gap": `${layout.gap}px`,
    "--columns": String(layout.columns),
    height: `${window_.height}px`,
  };
  return (
    <div ref={area} id="grid" class={`grid ${busy && store.slow.value ? "old" : ""}`} role="grid" aria-label="Pictures" aria-busy={busy}
      aria-rowcount={Math.ceil(total / layout.columns)} aria-colcount={layout.columns} aria-multiselectable style={style}>
      <div class="rows" role="presentation" style={{ transform: `translateY(${window_.offset}px)` }}>{rows}</div>
    </div>
  );
}

function Blank(): JSX.Element {
  return <div class="cell blank" role="gridcell" aria-label="loading"><div class="frame" /><div class="why" /></div>;
}

/** As many cells as there will be, as far as that is known. */
function totalOf(all: Hit[]): number {
  const first = !all.length && store.status.value === "loading" && store.slow.value;
  if (first) return 12;
  if (store.review.value || store.next.value === null) return all.length;
  const counts = store.counts.value;
  const dedup = store.dedup.value && store.collection.value?.duplicates === true;
  const known = counts && !dedup && !store.estimated.value && store.dragged.value === null ? counts[store.view.value] : 0;
  return Math.max(known, all.length + 50);
}

/** The margin up to which hits are close calls; less than any where there are no margins. */
function nearest(all: Hit[]): number {
  const margins = all.flatMap((hit) => (hit.margin !== null && hit.margin > 0 ? [hit.margin] : [])).sort((a, b) => a - b);
  return margins[Math.ceil(margins.length * NEAR_SHARE) - 1] ?? -1;
}

function reveal(area: HTMLElement | null, layout: Layout, at: number): void {
  if (!area) return;
  const from = area.getBoundingClientRect().top + scrollY + Math.floor(at / layout.columns) * layout.row;
  const header = document.querySelector(".sticky")?.getBoundingClientRect().bottom ?? 0;
  if (from < scrollY + header + 8) scrollTo({ top: from - header - 8 });
  else if (from + layout.row > scrollY + innerHeight - 60) scrollTo({ top: from + layout.row - innerHeight + 60 });
}
