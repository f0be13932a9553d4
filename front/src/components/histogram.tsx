/** The whole collection by score, and the line that cuts it. Nothing is asked while the line is dragged. */

import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { isText } from "../classes";
import { setThreshold } from "../editing";
import { barsOf, snap, stepOf } from "../histogram";
import * as store from "../store";
import { count, score, share } from "../words";

const MOST_BARS = 72;
const HIGH = 100;

export function HistogramLine(): JSX.Element | null {
  const area = useRef<SVGSVGElement>(null);
  const found = store.histogram.value;
  const one = store.current.value;
  if (!found || !one) return one ? <div class="histogram empty" /> : null;
  const images = [...one.positive, ...one.negative].filter((example) => !isText(example)).length;
  const bars = barsOf(found, MOST_BARS, images);
  const lo = bars[0]?.from ?? found.lo;
  const hi = bars.at(-1)?.to ?? found.hi;
  const most = Math.max(1, ...bars.map((bar) => bar.won + bar.rivalled));
  const tall = (n: number): number => HIGH * Math.sqrt(n / most); // few beside many can still be seen
  const at = store.threshold.value;
  const x = (value: number): number => ((value - lo) / (hi - lo)) * 100;
  const place = at === null ? 0 : Math.min(100, Math.max(0, x(at)));
  const { matched, rejected, below } = store.counts.value ?? { matched: 0, rejected: 0, below: 0 };
  const all = matched + rejected + below;

  function valueAt(event: PointerEvent): number {
    const box = (area.current as SVGSVGElement).getBoundingClientRect();
    return snap(found!, lo + ((event.clientX - box.left) / box.width) * (hi - lo));
  }

  function down(event: PointerEvent): void {
    if (event.button !== 0) return;
    (event.currentTarget as Element).setPointerCapture(event.pointerId);
    store.dragged.value = valueAt(event);
  }

  function move(event: PointerEvent): void {
    if (store.dragged.peek() !== null) store.dragged.value = valueAt(event);
  }

  function up(): void {
    const to = store.dragged.peek();
    store.dragged.value = null;
    if (to !== null) void setThreshold(to);
  }

  function key(event: KeyboardEvent): void {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20 }[event.key];
    const from = store.threshold.peek() ?? lo;
    const to = event.key === "Home" ? lo : event.key === "End" ? hi : steps ? from + 5 * steps * stepOf(found!) : null;
    if (to === null) return;
    event.preventDefault();
    event.stopPropagation();
    store.dragged.value = snap(found!, to);
  }

  return (
    <div class="histogram">
      <div class="plot" onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerCancel={() => (store.dragged.value = null)}>
        <svg ref={area} viewBox={`0 0 100 ${HIGH}`} preserveAspectRatio="none" aria-hidden="true">
          {bars.map((bar) => {
            const wide = x(bar.to) - x(bar.from);
            const all = tall(bar.won + bar.rivalled);
            const lost = bar.won + bar.rivalled ? (all * bar.rivalled) / (bar.won + bar.rivalled) : 0;
            const inside = at === null || bar.from >= at - stepOf(found) / 2;
            return (
              <g key={bar.from} class={inside ? "in" : "out"}>
                <rect class="won" x={x(bar.from)} width={wide * 0.86} y={HIGH - all} height={all - lost} />
                <rect class="lost" x={x(bar.from)} width={wide * 0.86} y={HIGH - lost} height={lost} />
              </g>
            );
          })}
        </svg>
        <div class="line" role="slider" tabindex={0} aria-label="Least score of a match" aria-valuemin={lo} aria-valuemax={hi}
          aria-valuenow={at ?? lo} aria-valuetext={at === null ? "no line" : `${score(at)}, ${count(matched)} match`}
          onKeyDown={key} onKeyUp={up} onBlur={up} style={{ left: `${place}%` }}>
          <output class={place > 85 ? "left" : ""}>{at === null ? "drag" : score(at)}</output>
        </div>
      </div>
      <p class="count">
        <b>{store.estimated.value ? "≈ " : ""}{count(matched)}</b> {matched === 1 ? "matches" : "match"}
        {at === null || !all ? null : <span class="faint" title="The share of the pictures that are above the line; how many of them are right, only looking tells">{share(matched, all)} of all</span>}
      </p>
    </div>
  );
}
