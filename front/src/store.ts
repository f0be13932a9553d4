/** What the page knows. Signals alone: they are changed by the modules that act, and read by the components. */

import { computed, signal } from "@preact/signals";
import type { Collection, Hit, Info, Job, Start, Suggested, Verdict } from "./answers";
import { type ClassSet, EMPTY, type MetaClass } from "./classes";
import { type Counts, type Histogram, countsAt } from "./histogram";
import { type Modality, type Sort, type Veto, type View, WEIGHT } from "./link";
import type { Layout } from "./windowing";

// What is served
export const info = signal<Info | null>(null);
export const collectionId = signal<string | null>(null);
export const collection = computed<Collection | null>(() => {
  const all = info.value?.collections ?? [];
  return all.find((one) => one.id === collectionId.value) ?? all[0] ?? null;
});
export const start = signal<Start | null>(null);
/** Whether the address has been read; before that nobody knows whether something is asked. */
export const opened = signal(false);

// What is asked
export const set = signal<ClassSet>(EMPTY);
export const active = signal(0);
export const current = computed<MetaClass | null>(() => set.value.classes[active.value] ?? null);
export const stored = signal<{ name: string; revision: string; text: string } | null>(null);
export const view = signal<View>("matched");
export const sort = signal<Sort>("score");
export const veto = signal<Veto>("soft");
export const dedup = signal(true);
export const boxes = signal(true);
export const modality = signal<Modality>("image");
export const multilingual = signal(false);
export const without = signal<string[]>([]);
export const rating = signal<number | null>(null);
export const weight = signal(WEIGHT);
/** What of that the collection offers: another one may not. */
export const foreign = computed(() => multilingual.value && collection.value?.multilingual === true);
export const left = computed(() => (collection.value?.flags ?? []).filter((one) => without.value.includes(one.name)));
export const rated = computed(() => (collection.value?.ratings.includes(rating.value ?? -1) ? rating.value : null));

// What was found
export type Status = "idle" | "loading" | "ready" | "failed";
export const status = signal<Status>("idle");
export const slow = signal(false);
export const hits = signal<Hit[]>([]);
/** What of the question's texts the model leaves out, or does not know. */
export const remarks = signal<string[]>([]);
export const next = signal<string | null>(null);
export const took = signal(0);
export const claim = signal<string>("exact");
/** Of a complete answer: the share of it that the index finds, as measured with such questions. */
export const recall = signal<number | null>(null);
export const revision = signal<string | null>(null);
export const stale = signal(false);
export const histogram = signal<Histogram | null>(null);
export const estimated = signal(false);

/** Where the line is while it is dragged; null while it is not. */
export const dragged = signal<number | null>(null);
export const threshold = computed(() => dragged.value ?? current.value?.threshold ?? null);
export const counts = computed<Counts | null>(() => histogram.value && countsAt(histogram.value, threshold.value));
/** Matches of classes by their question, for the list of classes. */
export const matchedBy = signal<ReadonlyMap<string, number>>(new Map());

// What is said of it
/** What is asked about next, or with `taught` what the marks so far say is right; `wins`: they tell more than the examples. */
export interface Review extends Suggested {
  wins: boolean;
  taught: boolean;
}
export const marks = signal<ReadonlyMap<string, Verdict>>(new Map());
export const review = signal<Review | null>(null);
export const cursor = signal(0);
/** Where a range that is being chosen began. */
export const anchor = signal<number | null>(null);
export const chosen = signal<ReadonlySet<string>>(new Set());
/** All items of the view are chosen, those that nobody has seen included. */
export const allChosen = signal(false);

/** How the grid is laid out, and how often the cursor was to be brought into sight with the focus on it. */
export const layout = signal<Layout | null>(null);
export const sought = signal(0);

/** The pictures in the grid: those that were found, or those to be reviewed. */
export const shown = computed<Hit[]>(() => review.value?.review ?? hits.value);

/** How many pictures the view has: of near-duplicates one, once all are loaded. */
export const whole = computed(() => {
  if (review.value || next.value === null) return shown.value.length;
  return counts.value?.[view.value] ?? 0;
});
/** Near-duplicates that are not shown, once that is known. */
export const folded = computed(() => {
  const all = counts.value?.[view.value] ?? 0;
  const known = status.value === "ready" && next.value === null && !review.value && dragged.value === null && !estimated.value;
  return known && dedup.value && collection.value?.duplicates ? Math.max(0, all - hits.value.length) : 0;
});

// What is open
export const item = signal<string | null>(null);
export const helping = signal(false);

// What is to be said
export interface Toast {
  text: string;
  actions: { label: string; act: () => void }[];
}
export const toast = signal<Toast | null>(null);

export interface Strip {
  text: string;
  request: string;
  kind: "error" | "offline" | "busy";
  retry: (() => void) | null;
}
export const strip = signal<Strip | null>(null);
export const announced = signal("");

// Long work
export const jobs = signal<Job[]>([]);
export const jobsOpen = signal(false);

/** Small pictures of uploaded images, which the service keeps as vectors alone: content hash -> data: URL. */
export const previews = signal<ReadonlyMap<string, string>>(new Map());

