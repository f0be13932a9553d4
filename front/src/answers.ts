/** What the service answers. What it is asked is generated, see openapi.ts. */

import type { Box } from "./boxes";
import type { Example } from "./classes";

/** What can be left out, and what flags it. */
export interface Flag {
  name: string;
  kind: "class" | "prompts" | "head";
}

export interface Collection {
  id: string;
  count: number;
  dim: number;
  model: string | null;
  modalities: string[];
  columns: string[];
  duplicates: boolean;
  /** Whether the service can say where in pictures a class is seen. */
  boxes: boolean;
  /** Whether there is a model for texts of other languages. */
  multilingual: boolean;
  /** Aesthetic ratings, 0 to 9, that can be preferred. */
  ratings: number[];
  flags: Flag[];
  read_only: boolean;
  index_rev: string;
}

export interface Info {
  version: string;
  collections: Collection[];
  limits: { results: number; reach: number; marks: number };
  formats: { label: string[]; export: string[] };
}

export interface Start {
  texts: string[];
  items: { id: string; key: string; thumb: string }[];
}

export interface Weighed {
  ex: Example;
  score: number;
}

export interface Hit {
  /** Log odds of being right, where that is what marks taught; the score then. */
  odds?: number;
  id: string;
  key: string;
  thumb: string;
  w: number | null;
  h: number | null;
  score: number;
  margin: number | null;
  pos: Weighed;
  neg: Weighed | null;
  boxes?: Box[];
}

export interface Found {
  index_rev: string;
  claim: "exact" | "complete" | "partial";
  recall: number | null;
  timings_ms: Record<string, number>;
  notes: string[];
  hits: Hit[];
  next: string | null;
}

export interface Distribution {
  counts: { matched: number; rejected: number; below: number };
  hist: { lo: number; hi: number; bins: [won: number, rivalled: number][]; ranked: number[] };
  estimated: boolean;
}

export interface Explained {
  name: string;
  accepted: boolean;
  score: number;
  margin: number | null;
  positive: Weighed[];
  negative: Weighed[];
}

export interface Item {
  id: string;
  key: string;
  metadata: Record<string, unknown>;
}

export type Verdict = "right" | "wrong";

export interface Mark {
  item: string;
  class: string;
  verdict: Verdict;
}

export interface Suggested {
  marks: { right: number; wrong: number };
  review: Hit[];
  left: number;
  positive: Hit[];
  negative: Hit[];
}

/** An item as marks teach to rank it, and which of what was said speaks most for it and against it. */
export interface Taught {
  id: string;
  key: string;
  thumb: string;
  w: number | null;
  h: number | null;
  odds: number;
  pos: Weighed | null;
  neg: Weighed | null;
}

export interface Learned {
  marks: { right: number; wrong: number };
  wins: boolean;
  hits: Taught[];
  review: Hit[];
}

export interface Job {
  id: string;
  kind: "label" | "export";
  collection: string;
  format: string;
  state: "waiting" | "running" | "done" | "failed" | "cancelled";
  stage: string;
  done: number;
  total: number | null;
  eta_s: number | null;
  message: string | null;
  made: number;
  items: number | null;
  bytes: number | null;
  skipped: number;
  result_url: string | null;
  skipped_url: string | null;
}

/** Path -> what a POST to it answers, or a GET where there is no POST. */
export interface Answers {
  "/api/v1/info": Info;
  "/api/v1/start": Start;
  "/api/v1/search": Found;
  "/api/v1/distribution": Distribution;
  "/api/v1/explain": Explained;
  "/api/v1/suggest": Suggested;
  "/api/v1/learn": Learned;
  "/api/v1/fetch": { id: string };
  "/api/v1/jobs": { id: string };
}
