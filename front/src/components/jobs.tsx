/** Long work and how far it is. */

import type { JSX } from "preact";
import type { Job } from "../answers";
import { resolved } from "../api";
import * as store from "../store";
import { cancel, lives } from "../working";
import { bytes, count, duration } from "../words";
import { FORMATS } from "./exporting";
import { Cross } from "./icons";

const SHOWN = 8;

export function Jobs(): JSX.Element | null {
  if (!store.jobsOpen.value) return null;
  const jobs = store.jobs.value.slice(0, SHOWN);
  return (
    <section class="jobs" aria-label="Jobs">
      <button type="button" class="quiet round close" aria-label="Close the jobs" onClick={() => (store.jobsOpen.value = false)}><Cross /></button>
      {jobs.length ? <ul>{jobs.map((job) => <One key={job.id} job={job} />)}</ul> : <p class="faint">Labelling a collection and exports show up here.</p>}
    </section>
  );
}

function One({ job }: { job: Job }): JSX.Element {
  const share = job.state === "done" ? 1 : job.total ? job.done / job.total : 0;
  return (
    <li class={`job ${job.state}`}>
      <p>
        <b>{job.kind === "label" ? "Label all" : "Export"}</b> <span class="faint">{job.collection}, {FORMATS[job.format] ?? job.format}</span>
      </p>
      {lives(job) || job.state === "done" ? <progress max={1} value={share} aria-label={`${Math.round(100 * share)} %`} /> : null}
      <p class="faint">{said(job)}</p>
      <p class="acts">
        {job.result_url ? <a href={resolved(job.result_url)} download>Download</a> : null}
        {job.skipped_url ? <a href={resolved(job.skipped_url)} download>{count(job.skipped)} left out</a> : null}
        <button type="button" class="link" onClick={() => void cancel(job)}>{lives(job) ? "Cancel" : "Remove"}</button>
      </p>
    </li>
  );
}

function said(job: Job): string {
  if (job.state === "waiting") return "waits for its turn";
  if (job.state === "running") {
    const done = job.total ? `${count(job.done)} of ${count(job.total)}` : "begins";
    return job.eta_s === null ? done : `${done}, ${duration(job.eta_s)} to go`;
  }
  if (job.state === "done") return `${count(job.items ?? 0)} items, ${bytes(job.bytes ?? 0)}`;
  return job.state === "failed" ? (job.message ?? "It failed.") : "cancelled";
}
