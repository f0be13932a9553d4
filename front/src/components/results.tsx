/** The pictures that were found, or why there are none. */

import type { JSX } from "preact";
import type { Hit } from "../answers";
import { search } from "../asking";
import { addExample, setShape, setThreshold, setView } from "../editing";
import { resolved } from "../api";
import { best } from "../histogram";
import { endReview, reviewNext, showTaught } from "../marking";
import * as store from "../store";
import { count, plural, quoted, score } from "../words";
import { Grid } from "./grid";
import { InUse } from "./offers";

export function Results(): JSX.Element {
  const review = store.review.value;
  const loading = store.status.value === "loading";
  const none = !store.shown.value.length && !loading && store.status.value !== "failed";
  return (
    <section id="pictures" class="results" role="tabpanel" aria-label="Pictures">
      <InUse />
      {review ? <Reviewing /> : store.remarks.value.map((remark) => <p key={remark} class="remark" role="note">{remark}</p>)}
      {none ? <None /> : <Grid />}
      {store.claim.value === "complete" && store.recall.value !== null && !review ? (
        <p class="folded">The index finds about {Math.floor(100 * store.recall.value)}% of the best pictures for such questions.</p>
      ) : null}
      {store.folded.value ? (
        <p class="folded">
          {plural(store.folded.value, "near-duplicate")} not shown
          <button type="button" class="quiet" onClick={() => void setShape({ dedup: false })}>Show all</button>
        </p>
      ) : null}
    </section>
  );
}

function None(): JSX.Element {
  const view = store.view.value;
  const counts = store.counts.value;
  const line = store.threshold.value;
  const found = store.histogram.value;
  if (store.review.value) return <p class="none">There is nothing left to ask about. <button type="button" class="quiet" onClick={endReview}>Back to the pictures</button></p>;
  if (store.status.value === "idle") return <p class="none">Cancelled. <button type="button" class="quiet" onClick={() => void search()}>Search again</button></p>;
  if (view === "rejected") return <p class="none">Nothing is rejected. Say under “But not like” what it must not be taken for.</p>;
  if (view === "below") return <p class="none">Nothing is below the line.</p>;
  if (counts?.rejected) {
    const one = store.current.value;
    const by = one?.negative.length === 1 && one.negative[0] !== undefined ? quoted(one.negative[0]) : "what it is not like";
    return (
      <p class="none">
        {plural(counts.rejected, "picture")} found, all rejected by {by}.
        <button type="button" class="quiet" onClick={() => void setView("rejected")}>Show them</button>
      </p>
    );
  }
  const top = found && best(found);
  if (line === null || top === null) return <p class="none">Nothing matches.</p>;
  return (
    <p class="none">
      No match above {score(line)}. The best is {score(top)}: lower the line.
      <button type="button" class="quiet" onClick={() => void setThreshold(top)}>Lower it to {score(top)}</button>
    </p>
  );
}

/** How far the review is, and which of what was said disagrees with the class. */
function Reviewing(): JSX.Element | null {
  const review = store.review.value;
  if (!review) return null;
  const said = review.review.filter((hit) => store.marks.value.has(hit.id)).length;
  const done = said === review.review.length;
  const { right, wrong } = review.marks;
  return (
    <div class="reviewing">
      {review.taught ? (
        <p>
          <b>As your marks teach</b> <span class="faint">{count(right)} right and {count(wrong)} wrong; the likeliest first.</span>
          <button type="button" class="quiet" onClick={() => void reviewNext()}>Review more</button>
          <button type="button" class="quiet" onClick={endReview}>Done</button>
        </p>
      ) : (
        <p>
          <b>{said} of {review.review.length}</b> <span class="faint">judged, from the likeliest to the least alike: right <kbd>Y</kbd> or wrong <kbd>N</kbd>?</span>
          {said ? <button type="button" class={done ? "main" : "quiet"} onClick={() => void reviewNext()}>The next ones</button> : null}
          {review.wins ? <button type="button" class="quiet" onClick={() => void showTaught()}>Show what your marks teach</button> : null}
          <button type="button" class="quiet" onClick={endReview}>Done</button>
        </p>
      )}
      <Proposed side="positive" hits={review.positive} text="You said right, yet they do not match. Add one to “Looks like”:" />
      <Proposed side="negative" hits={review.negative} text="You said wrong, yet they match. Add one to “But not like”:" />
    </div>
  );
}

function Proposed({ side, hits, text }: { side: "positive" | "negative"; hits: Hit[]; text: string }): JSX.Element | null {
  if (!hits.length) return null;
  return (
    <div class="proposed">
      <span>{text}</span>
      <ul class="strip">
        {hits.slice(0, 6).map((hit) => (
          <li key={hit.id}><button type="button" title={`${score(hit.score)}: add it`} onClick={() => void accept(side, hit)}><img src={resolved(hit.thumb)} alt={hit.key} /></button></li>
        ))}
      </ul>
    </div>
  );
}

async function accept(side: "positive" | "negative", hit: Hit): Promise<void> {
  await addExample(side, { image: hit.id });
  await reviewNext();
}
