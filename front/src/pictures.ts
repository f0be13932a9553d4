/** Images from outside as examples: chosen, pasted or dropped. */

import * as api from "./api";
import { type Box, placed } from "./boxes";
import type { Side } from "./classes";
import { addExample, begin } from "./editing";
import { trouble } from "./notices";
import * as store from "./store";

const KEPT = "clipsieve.previews";
const MOST = 60;
const SIDE = 96;

export async function addFiles(files: Iterable<File>, side: Side, anew: boolean): Promise<void> {
  const collection = store.collection.peek();
  const images = [...files].filter((file) => file.type.startsWith("image/"));
  if (!collection) return;
  if (!images.length) return trouble(new Error("That is no image; a PNG, JPEG, WebP or GIF would do."), null);
  for (const file of images) {
    try {
      const id = await api.upload(collection.id, file);
      keepPreview(id, await preview(file));
      if (anew && file === images[0]) await begin({ image: id });
      else await addExample(side, { image: id });
    } catch (error) {
      trouble(error, () => void addFiles([file], side, anew));
      return;
    }
  }
}

/** The pictures that are like one part of a picture that is in the page. */
export async function searchCrop(box: Box, picture: HTMLImageElement): Promise<void> {
  const { x, y, w, h } = placed(box, { x: 0, y: 0, w: picture.naturalWidth, h: picture.naturalHeight });
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(w));
  canvas.height = Math.max(1, Math.round(h));
  canvas.getContext("2d")?.drawImage(picture, x, y, w, h, 0, 0, canvas.width, canvas.height);
  const part = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
  if (part) await addFiles([new File([part], "part.png", { type: part.type })], "positive", true);
}

export function loadPreviews(): void {
  try {
    const pairs = JSON.parse(localStorage.getItem(KEPT) ?? "[]") as [string, string][];
    store.previews.value = new Map(pairs);
  } catch {
    // none are kept
  }
}

function keepPreview(id: string, url: string): void {
  const pairs = [...store.previews.peek()].filter(([other]) => other !== id);
  store.previews.value = new Map([...pairs, [id, url] as [string, string]].slice(-MOST));
  try {
    localStorage.setItem(KEPT, JSON.stringify([...store.previews.peek()]));
  } catch {
    // they last as long as the page
  }
}

async function preview(file: Blob): Promise<string> {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/webp", 0.8);
}
