/** Class sets: what a class looks like and what it must not be taken for. Pure: nothing here asks or shows anything. */

/** A text, or an image; with a box the part of it from x0, y0 to x1, y1, in 0..1. */
export type Example = string | { image: string; box?: number[] };
export type Side = "positive" | "negative";

export interface MetaClass {
  name: string;
  positive: Example[];
  negative: Example[];
  threshold: number | null;
  /** What somebody else wrote into the file; it is kept. */
  [unknown: string]: unknown;
}

export interface ClassSet {
  classes: MetaClass[];
  calibration: "none" | "background";
  templates: string | string[] | null;
  nms: number | null;
  mode: "agnostic" | "class-wise" | null;
  [unknown: string]: unknown;
}

export const EMPTY: ClassSet = { classes: [], calibration: "background", templates: null, nms: null, mode: null };

/** A class set as files have it, ours or DirectAI's. An Error says in a sentence what is wrong with anything else. */
export function readSet(text: string): ClassSet {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("The file is not JSON, so it is no class set.");
  }
  if (!isObject(value)) throw new Error("The file holds no class set; it must be a JSON object.");
  if ("classifier_configs" in value) return fromDirectAI(value, "classifier_configs");
  if ("detector_configs" in value) return fromDirectAI(value, "detector_configs");
  if (!Array.isArray(value["classes"])) throw new Error("The file has no list of classes, so it is no class set.");
  const classes = value["classes"].map((one, i) => readClass(one, `classes[${i}]`));
  unique(classes);
  const calibration = value["calibration"] ?? "none";
  if (calibration !== "none" && calibration !== "background") {
    throw new Error(`calibration is ${JSON.stringify(calibration)}; it must be "none" or "background".`);
  }
  return { ...EMPTY, ...value, calibration, classes } as ClassSet;
}

/** The file of a set; `readSet` reads the same again. */
export function writeSet(set: ClassSet): string {
  return JSON.stringify(set, null, 2) + "\n";
}

/** What DirectAI's service takes of a set, and in sentences what it has no words for. */
export function toDirectAI(set: ClassSet): { body: unknown; dropped: string[] } {
  const dropped: string[] = [];
  const texts = (examples: Example[]): string[] => examples.filter((one) => typeof one === "string");
  const configs = set.classes.flatMap((one) => {
    const images = one.positive.length + one.negative.length - texts(one.positive).length - texts(one.negative).length;
    if (images) dropped.push(`${counted(images, "example image")} of “${one.name}”`);
    if (one.threshold !== null && set.nms === null) dropped.push(`the threshold of “${one.name}”`);
    if (!texts(one.positive).length) {
      dropped.push(`“${one.name}”, which has no text that it looks like`);
      return [];
    }
    const config = { name: one.name, examples_to_include: texts(one.positive), examples_to_exclude: texts(one.negative) };
    return [set.nms === null ? config : { ...config, detection_threshold: one.threshold ?? 0.1 }];
  });
  const augment = set.templates !== null;
  if (set.nms === null) return { body: { classifier_configs: configs, augment_examples: augment }, dropped };
  return { body: { detector_configs: configs, nms_threshold: set.nms, augment_examples: augment }, dropped };
}

/** What the service is asked: one class, and only what it knows of. */
export function toQuestion(set: ClassSet, one: MetaClass): Record<string, unknown> {
  return { classes: [known(one)], calibration: set.calibration, templates: set.templates };
}

/** The whole set for a job, likewise. */
export function toLabels(set: ClassSet): Record<string, unknown> {
  return { classes: set.classes.map(known), calibration: set.calibration, templates: set.templates };
}

export function same(a: Example, b: Example): boolean {
  if (typeof a === "string" || typeof b === "string") return a === b;
  return a.image === b.image && String(a.box) === String(b.box);
}

export function isText(example: Example): example is string {
  return typeof example === "string";
}

/** The class with an example more; itself where it has that already. */
export function withExample(one: MetaClass, side: Side, example: Example): MetaClass {
  if (one[side].some((other) => same(other, example))) return one;
  const other = side === "positive" ? "negative" : "positive";
  return { ...one, [side]: [...one[side], example], [other]: one[other].filter((e) => !same(e, example)) };
}

export function withoutExample(one: MetaClass, side: Side, example: Example): MetaClass {
  return { ...one, [side]: one[side].filter((other) => !same(other, example)) };
}

/** The set with class number `i` replaced. Texts and images meet on the background scale alone. */
export function withClass(set: ClassSet, i: number, one: MetaClass): ClassSet {
  return { ...set, classes: set.classes.map((other, j) => (i === j ? one : other)) };
}

/** Whether texts and images meet in the set, which cosines do not let them. */
export function mixed(set: ClassSet): boolean {
  const all = set.classes.flatMap((one) => [...one.positive, ...one.negative]);
  return all.some(isText) && !all.every(isText);
}

/** A name that the set does not have yet: "bus", "bus 2", ... */
export function freeName(set: ClassSet, wanted: string): string {
  const taken = new Set(set.classes.map((one) => one.name));
  for (let i = 1; ; i++) {
    const name = i === 1 ? wanted : `${wanted} ${i}`;
    if (!taken.has(name)) return name;
  }
}

/** Where the line of a new class is drawn before anything is known of its scores: the higher the larger the collection, 3 at most. */
export function firstThreshold(set: ClassSet, count: number): number | null {
  if (set.calibration === "none") return null;
  return Math.round(10 * Math.min(3, Math.max(1, Math.log10(Math.max(count, 1)) - 0.75))) / 10;
}

function known(one: MetaClass): Record<string, unknown> {
  return { name: one.name, positive: one.positive, negative: one.negative, threshold: one.threshold };
}

function readClass(value: unknown, where: string): MetaClass {
  if (!isObject(value)) throw new Error(`${where} is no JSON object.`);
  if (typeof value["name"] !== "string") throw new Error(`${where} has no name.`);
  const positive = readExamples(value["positive"], `${where}.positive`);
  if (!positive.length) throw new Error(`${where} has no positive example; a class needs one at least.`);
  const threshold = value["threshold"] ?? null;
  if (threshold !== null && typeof threshold !== "number") throw new Error(`${where}.threshold is no number.`);
  const negative = readExamples(value["negative"] ?? [], `${where}.negative`);
  return { ...value, name: value["name"], positive, negative, threshold };
}

function readExamples(value: unknown, where: string): Example[] {
  if (!Array.isArray(value)) throw new Error(`${where} is no list.`);
  return value.map((one: unknown) => {
    if (typeof one === "string") return one;
    const image = isObject(one) ? one["image"] : undefined;
    if (typeof image !== "string" && typeof image !== "number") {
      throw new Error(`${where} holds what is neither a text nor an image.`);
    }
    const box: unknown = isObject(one) ? one["box"] : undefined;
    if (box === undefined) return { image: String(image) };
    if (!Array.isArray(box) || !box.every((side) => typeof side === "number")) throw new Error(`${where} has a box that is none.`);
    return { image: String(image), box };
  });
}

function fromDirectAI(body: Record<string, unknown>, field: string): ClassSet {
  const { [field]: configs, augment_examples, nms_threshold, class_agnostic_nms, ...rest } = body;
  if (!Array.isArray(configs) || !configs.length) throw new Error(`${field} is no list of classes.`);
  const detects = field === "detector_configs";
  const classes = configs.map((value: unknown, i): MetaClass => {
    const where = `${field}[${i}]`;
    if (!isObject(value)) throw new Error(`${where} is no JSON object.`);
    const { name, examples_to_include, examples_to_exclude, detection_threshold, ...others } = value;
    const threshold = detects ? (detection_threshold ?? 0.1) : null;
    return readClass({ ...others, name, positive: examples_to_include, negative: examples_to_exclude, threshold }, where);
  });
  unique(classes);
  return {
    ...EMPTY,
    ...rest,
    classes,
    calibration: "none",
    templates: augment_examples === false ? null : detects ? "simple" : "openai",
    nms: detects ? ((nms_threshold as number | undefined) ?? 0.4) : null,
    mode: detects ? (class_agnostic_nms === false ? "class-wise" : "agnostic") : null,
  };
}

function unique(classes: MetaClass[]): void {
  const names = classes.map((one) => one.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`The file names the class “${twice}” twice; names must differ.`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function counted(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}
