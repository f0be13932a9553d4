/** What the address says, and the address of what is shown. Pure but for the packing, which the browser does. */

import { type ClassSet, type Example, type MetaClass, isText, readSet } from "./classes";

export type View = "matched" | "rejected" | "below";
export type Sort = "score" | "margin" | "new";
/** What a negative does that is nearer than every positive: lowers the score, or removes the item. */
export type Veto = "soft" | "hard";
export type Modality = "image" | "text";

/** Of a rating beside each example, unless another one is chosen. */
export const WEIGHT = 0.5;

export interface Link {
  collection: string | null;
  /** A text, an item or uploaded image, or an image elsewhere: a class of one example. */
  text: string | null;
  image: string | null;
  url: string | null;
  /** A stored set, and which of its classes. */
  stored: string | null;
  named: string | null;
  /** A set that is nowhere but here. */
  packed: string | null;
  threshold: number | null;
  view: View;
  sort: Sort;
  veto: Veto;
  dedup: boolean;
  boxes: boolean;
  modality: Modality;
  multilingual: boolean;
  /** Names of flags, what is flagged by which is left out. */
  without: string[];
  rating: number | null;
  weight: number;
  item: string | null;
}

export function readLink(search: string, hash: string): Link {
  const words = new URLSearchParams(search);
  const oneOf = <T extends string>(name: string, known: readonly T[]): T =>
    known.find((one) => one === words.get(name)) ?? (known[0] as T);
  const number = (name: string): number | null => {
    const word = words.get(name);
    return word === null || word === "" || !Number.isFinite(Number(word)) ? null : Number(word);
  };
  return {
    collection: words.get("c"),
    text: words.get("q"),
    image: words.get("img"),
    url: words.get("url"),
    stored: words.get("set"),
    named: words.get("cls"),
    packed: new URLSearchParams(hash.replace(/^#/, "")).get("s"),
    threshold: number("t"),
    view: oneOf("v", ["matched", "rejected", "below"]),
    sort: oneOf("sort", ["score", "margin", "new"]),
    veto: oneOf("veto", ["soft", "hard"]),
    dedup: words.get("dedup") !== "0",
    boxes: words.get("box") !== "0",
    modality: oneOf("in", ["image", "text"]),
    multilingual: words.get("lang") === "any",
    without: (words.get("without") ?? "").split(",").filter(Boolean),
    rating: number("rating"),
    weight: Math.max(-10, Math.min(10, number("weight") ?? WEIGHT)),
    item: words.get("item"),
  };
}

/** Whether there is a class in it, and not only where to look for one. */
export function asksSomething(link: Link): boolean {
  return [link.text, link.image, link.url, link.stored, link.packed].some((one) => one !== null);
}

/** "?c=photos&q=red+bus&t=3#s=..."; only what is not as always. */
export function writeLink(link: Link): string {
  const words = new URLSearchParams();
  const put = (name: string, value: string | null): void => {
    if (value) words.set(name, value);
  };
  put("c", link.collection);
  put("q", link.text);
  put("img", link.image);
  put("url", link.url);
  put("set", link.stored);
  put("cls", link.named);
  put("t", link.threshold === null ? null : String(link.threshold));
  put("v", link.view === "matched" ? null : link.view);
  put("sort", link.sort === "score" ? null : link.sort);
  put("veto", link.veto === "soft" ? null : link.veto);
  put("in", link.modality === "image" ? null : link.modality);
  put("lang", link.multilingual ? "any" : null);
  put("without", link.without.join(","));
  put("rating", link.rating === null ? null : String(link.rating));
  put("weight", link.rating === null || link.weight === WEIGHT ? null : String(link.weight));
  put("dedup", link.dedup ? null : "0");
  put("box", link.boxes ? null : "0");
  put("item", link.item);
  return `?${words}${link.packed ? `#s=${link.packed}` : ""}`;
}

/** The one example that says all of a set; null where there is more to say. */
export function onlyExample(set: ClassSet): Example | null {
  const [one, ...others] = set.classes;
  if (!one || others.length || one.negative.length || one.positive.length !== 1) return null;
  const plain = ["name", "positive", "negative", "threshold"];
  const bare = Object.keys(one).every((key) => plain.includes(key)) && Object.keys(set).length === 5;
  const [example] = one.positive as [Example];
  const named = nameFor(example) === one.name;
  return bare && named && set.calibration === "background" && set.templates === null && set.nms === null ? example : null;
}

/** What a class is called as long as nobody names it. */
export function nameFor(example: Example): string {
  return isText(example) ? example : "like an image";
}

export function classOf(example: Example, threshold: number | null): MetaClass {
  return { name: nameFor(example), positive: [example], negative: [], threshold };
}

/** A set as a word for the address. It is behind the #, which browsers keep to themselves. */
export async function pack(set: ClassSet): Promise<string> {
  const packed = await through(new TextEncoder().encode(JSON.stringify(set)), new CompressionStream("deflate-raw"));
  return btoa(String.fromCharCode(...packed)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** The set in such a word. An Error where it is none. */
export async function unpack(word: string): Promise<ClassSet> {
  try {
    const packed = Uint8Array.from(atob(word.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    return readSet(new TextDecoder().decode(await through(packed, new DecompressionStream("deflate-raw"))));
  } catch {
    throw new Error("The class in this link cannot be read; part of the link may be missing.");
  }
}

async function through(data: Uint8Array<ArrayBuffer>, stream: CompressionStream | DecompressionStream): Promise<Uint8Array> {
  return new Uint8Array(await new Response(new Blob([data]).stream().pipeThrough(stream)).arrayBuffer());
}
