/** Long work: begun, watched once a second while it runs and somebody looks, cancelled, fetched. */

import type { Job } from "./answers";
import * as api from "./api";
import { toLabels } from "./classes";
import { boxed, question } from "./asking";
import { fetchFile } from "./filing";
import { announce, toast, trouble } from "./notices";
import * as store from "./store";

const mine = new Set<string>();
let timer = 0;

export const lives = (job: Job): boolean => job.state === "waiting" || job.state === "running";

/** Label every item with the classes of the set. */
export function labelAll(format: string): Promise<void> {
  const body = { set: toLabels(store.set.peek()), collection: store.collection.peek()?.id ?? null, boxes: boxesIn(format) };
  const multilingual = store.foreign.peek();
  return begin({ kind: "label", format: format as api.NewJob["format"], ...body, multilingual });
}

/** Write the chosen items as a file, or all of the view: then the question is sent, however many they are. */
export function exportItems(format: string): Promise<void> {
  const one = store.current.peek();
  if (!one) return Promise.resolve();
  const { collection, ...asked } = question(store.set.peek(), one);
  const ids = store.allChosen.peek() ? [] : [...store.chosen.peek()];
  const dedup = store.dedup.peek() && store.collection.peek()?.duplicates === true;
  const view = { view: store.view.peek(), sort: store.sort.peek(), veto: store.veto.peek(), dedup, boxes: boxesIn(format) };
  const job = { kind: "export" as const, format: format as api.NewJob["format"], collection };
  if (store.review.peek()) return begin({ ...job, ids: ids.length ? ids : store.shown.peek().map((hit) => hit.id) });
  return begin({ ...job, ...asked, ...view, ...(ids.length ? { ids } : {}) });
}

/** Whether the file is to say where in each picture a class is seen, as the page shows it. */
const boxesIn = (format: string): boolean => boxed() && format !== "folders";

async function begin(job: api.NewJob): Promise<void> {
  try {
    const { id } = await api.post("/api/v1/jobs", job);
    mine.add(id);
    store.jobsOpen.value = true;
    await watch();
  } catch (error) {
    trouble(error, () => void begin(job));
  }
}

export async function cancel(job: Job): Promise<void> {
  try {
    await api.cancelJob(job.id);
    await watch();
  } catch (error) {
    trouble(error, null);
  }
}

/** Look now, and again while something runs. */
export async function watch(): Promise<void> {
  clearTimeout(timer);
  try {
    store.jobs.value = await api.jobs();
  } catch {
    timer = window.setTimeout(() => void watch(), 5000);
    return;
  }
  for (const job of store.jobs.peek()) {
    if (!mine.has(job.id) || lives(job)) continue;
    mine.delete(job.id);
    ended(job);
  }
  if (store.jobs.peek().some(lives) && document.visibilityState === "visible") {
    timer = window.setTimeout(() => void watch(), 1000);
  }
}

function ended(job: Job): void {
  if (job.state === "done" && job.result_url) {
    announce("The file is ready.");
    if (job.kind === "export") fetchFile(api.resolved(job.result_url));
    else toast("Every picture has its label.", { label: "Download", act: () => fetchFile(api.resolved(job.result_url ?? "")) });
  } else if (job.state === "failed") trouble(new Error(job.message ?? "The job failed."), null);
}
