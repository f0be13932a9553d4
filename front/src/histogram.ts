/** The histogram of a class over the whole collection, and what a line through it leaves. Pure. */

export interface Scale {
  lo: number;
  hi: number;
  bins: number;
}

/** Bins so fine that a line can be drawn at each, and counts are right without asking: hundredths, or 0.002 of cosines. */
export function scaleOf(calibration: "none" | "background"): Scale {
  return calibration === "none" ? { lo: -1.024, hi: 1.024, bins: 1024 } : { lo: 0, hi: 10.24, bins: 1024 };
}

export interface Histogram extends Scale {
  /** Items of each bin that are nearer a positive example, and those nearer a negative one. */
  won: number[];
  rivalled: number[];
  /** Items of each bin of the score that ranks them: less than the positives' where a negative lowers it. */
  ranked: number[];
}

export interface Counts {
  matched: number;
  rejected: number;
  below: number;
}

export function stepOf(scale: Scale): number {
  return (scale.hi - scale.lo) / scale.bins;
}

/** The nearest place where a line can be drawn, as a number that prints well. */
export function snap(scale: Scale, at: number): number {
  const step = stepOf(scale);
  const n = Math.round((Math.min(Math.max(at, scale.lo), scale.hi) - scale.lo) / step);
  return Number((scale.lo + n * step).toFixed(4));
}

/** What a line leaves; without one nothing is below. */
export function countsAt(found: Histogram, threshold: number | null): Counts {
  const from = threshold === null ? 0 : Math.round((threshold - found.lo) / stepOf(found));
  const counts = { matched: 0, rejected: 0, below: 0 };
  for (let i = 0; i < found.won.length; i++) {
    const held = (found.won[i] ?? 0) + (found.rivalled[i] ?? 0);
    if (i < from) counts.below += held;
    else {
      counts.matched += found.ranked[i] ?? 0;
      counts.rejected += held - (found.ranked[i] ?? 0); // what a negative lowered is in bins further down
    }
  }
  return counts;
}

export interface Bar {
  from: number;
  to: number;
  won: number;
  rivalled: number;
}

/**
 * At most `most` bars over what the bins hold, some room left on both sides. The best `examples` items, which may be
 * the class's own, do not stretch it: what is beyond the last bar counts in it.
 */
export function barsOf(found: Histogram, most: number, examples: number): Bar[] {
  const held = (i: number): number => (found.won[i] ?? 0) + (found.rivalled[i] ?? 0);
  const all = found.won.map((_, i) => i).filter((i) => held(i) > 0);
  const first = all[0] ?? 0;
  for (let left = examples; all.length > 1 && left >= held(all.at(-1) as number); ) left -= held(all.pop() as number);
  const last = all.at(-1) ?? found.bins - 1;
  const width = Math.max(1, Math.ceil((last - first + 1) / (most - 2)));
  const bars: Bar[] = [];
  for (let i = Math.max(0, first - width); i < Math.min(found.bins, last + 1 + width); i += width) {
    const sum = (of: number[]): number => of.slice(i, i + width).reduce((a, b) => a + b, 0);
    const at = (n: number): number => found.lo + n * stepOf(found);
    bars.push({ from: at(i), to: at(i + width), won: sum(found.won), rivalled: sum(found.rivalled) });
  }
  const end = bars.at(-1);
  if (end) {
    const beyond = (of: number[]): number => of.slice(Math.round((end.to - found.lo) / stepOf(found))).reduce((a, b) => a + b, 0);
    end.won += beyond(found.won);
    end.rivalled += beyond(found.rivalled);
  }
  return bars;
}

/** The best score that any item has, as far as bins tell: where the last one that holds something begins. */
export function best(found: Histogram): number | null {
  for (let i = found.bins - 1; i >= 0; i--) if (found.ranked[i]) return snap(found, found.lo + i * stepOf(found));
  return null;
}
