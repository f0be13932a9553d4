/** The service over HTTP. Paths and bodies are checked against its own description. */

import type { Answers, Item, Job, Mark } from "./answers";
import type { components, paths } from "./openapi";

type Schemas = components["schemas"];
export type Search = Schemas["Search"];
export type Used = Pick<Search, "multilingual" | "rating" | "rating_weight" | "without">;
export type Question = Required<Pick<Search, "collection" | "set" | "threshold" | "modality">> & Used;
export type NewJob = Schemas["NewJob"];
export type Said = Schemas["Said"];

type Json<T> = T extends { requestBody: { content: { "application/json": infer B } } }
  ? B
  : T extends { requestBody?: { content: { "application/json": infer B } } }
    ? B
    : never;
type Body<P extends keyof paths> = paths[P] extends { post: infer T } ? Json<T> : never;
type Posted = { [P in keyof paths & keyof Answers]: paths[P] extends { post: object } ? P : never }[keyof paths & keyof Answers];

export type Trouble = "refused" | "busy" | "slow" | "unreachable" | "failed";

/** A request that was not answered as wished: a sentence for people, and the request's id for the service's log. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly kind: Trouble,
    readonly status: number,
    readonly request: string,
  ) {
    super(message);
  }
}

const SECONDS = 60;

/** Where the service is: where the page came from. */
const at = (path: string): string => new URL(path.replace(/^\//, ""), document.baseURI).href;

/** The address of a picture, of at most so many pixels. */
export function imageUrl(collection: string, id: string, size?: 64 | 128 | 256 | 512 | 1024): string {
  const words = new URLSearchParams({ collection, ...(size ? { size: String(size) } : {}) });
  return at(`/api/v1/items/${encodeURIComponent(id)}/image?${words}`);
}

/** An address out of an answer. */
export const resolved = at;

export function post<P extends Posted>(path: P, body: Body<P>, signal?: AbortSignal): Promise<Answers[P]> {
  return ask("POST", path, JSON.stringify(body), signal) as Promise<Answers[P]>;
}

export const info = (): Promise<Answers["/api/v1/info"]> => get("/api/v1/info");

export const start = (collection: string): Promise<Answers["/api/v1/start"]> => get("/api/v1/start", { collection });

export const item = (collection: string, id: string): Promise<Item> =>
  get(`/api/v1/items/${encodeURIComponent(id)}`, { collection });

export async function upload(collection: string, file: Blob): Promise<string> {
  const form = new FormData();
  form.set("data", file);
  form.set("collection", collection);
  return ((await ask("POST", "/api/v1/uploads", form)) as { id: string }).id;
}

export const marksOf = async (collection: string, name: string): Promise<Mark[]> =>
  (await get<{ marks: Mark[] }>("/api/v1/marks", { collection, class: name })).marks;

export const mark = (collection: string, said: Said[]): Promise<unknown> => asked("POST", collection, said);

export const unmark = (collection: string, said: Schemas["TakenBack"][]): Promise<unknown> =>
  asked("DELETE", collection, said);

export const jobs = async (): Promise<Job[]> => (await get<{ jobs: Job[] }>("/api/v1/jobs")).jobs;

export const cancelJob = (id: string): Promise<unknown> => ask("DELETE", `/api/v1/jobs/${encodeURIComponent(id)}`);

export interface Stored {
  name: string;
  revision: string;
}

export const sets = async (collection: string): Promise<Stored[]> =>
  (await get<{ sets: Stored[] }>("/api/v1/sets", { collection })).sets;

export const storedSet = (collection: string, name: string): Promise<unknown> =>
  get(`/api/v1/sets/${encodeURIComponent(name)}`, { collection });

/** Store a set. `revision` is of the one that it replaces; null for a new one. */
export async function store(collection: string, name: string, text: string, revision: string | null): Promise<Stored> {
  const words = new URLSearchParams({ collection });
  const match = revision === null ? {} : { "If-Match": `"${revision}"` };
  const path = `/api/v1/sets/${encodeURIComponent(name)}?${words}`;
  return (await ask("PUT", path, text, undefined, match)) as Stored;
}

export async function reachable(): Promise<boolean> {
  try {
    const answer = await fetch(at("/healthz"), { cache: "no-store" });
    await answer.text(); // what is not read keeps its connection
    return answer.ok;
  } catch {
    return false;
  }
}

function get<T>(path: string, words: Record<string, string> = {}): Promise<T> {
  const query = new URLSearchParams(words).toString();
  return ask("GET", query ? `${path}?${query}` : path) as Promise<T>;
}

function asked(method: string, collection: string, said: unknown): Promise<unknown> {
  return ask(method, `/api/v1/marks?${new URLSearchParams({ collection })}`, JSON.stringify(said));
}

async function ask(
  method: string,
  path: string,
  body?: string | FormData,
  signal?: AbortSignal,
  headers: Record<string, string> = {},
): Promise<unknown> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), SECONDS * 1000);
  const given: RequestInit = {
    method,
    headers: typeof body === "string" ? { "Content-Type": "application/json", ...headers } : headers,
    signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal,
  };
  if (body !== undefined) given.body = body;
  try {
    const answer = await fetch(at(path), given);
    const text = await answer.text();
    if (!answer.ok) throw refusal(answer, text);
    return text ? JSON.parse(text) : null;
  } catch (error) {
    if (error instanceof ApiError || signal?.aborted) throw error;
    if (late.signal.aborted) throw new ApiError(`There was no answer within ${SECONDS} seconds.`, "slow", 0, "");
    throw new ApiError("The service cannot be reached.", "unreachable", 0, "");
  } finally {
    clearTimeout(timer);
  }
}

function refusal(answer: Response, text: string): ApiError {
  const kind = answer.status === 503 || answer.status === 429 ? "busy" : answer.status < 500 ? "refused" : "failed";
  let message = `The service answered ${answer.status}.`;
  try {
    const said = (JSON.parse(text) as { error?: { message?: string } }).error?.message;
    if (said) message = said;
  } catch {
    // a proxy's own page; the status says what there is to say
  }
  return new ApiError(message, kind, answer.status, answer.headers.get("X-Request-Id") ?? "");
}
