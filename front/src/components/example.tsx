/** Examples: as chips that can be taken away, and in the line that says why. */

import type { JSX } from "preact";
import { imageUrl } from "../api";
import { type Example, type Side, isText } from "../classes";
import { removeExample } from "../editing";
import * as store from "../store";
import { Cross, Picture } from "./icons";

export function Thumb({ image, size = 64 }: { image: string; size?: 64 | 256 }): JSX.Element {
  const kept = store.previews.value.get(image);
  const uploaded = image.length > 19;
  const collection = store.collection.value;
  if (uploaded && !kept) return <span class="thumb" title="an uploaded image"><Picture /></span>;
  const url = kept ?? (collection ? imageUrl(collection.id, image, size) : "");
  return <img class="thumb" src={url} alt={uploaded ? "an uploaded image" : `item ${image}`} />;
}

/** "red bus" or a small picture, for running text. */
export function Named({ example }: { example: Example }): JSX.Element {
  return isText(example) ? <q>{example}</q> : <Thumb image={example.image} />;
}

export function Chip({ side, example }: { side: Side; example: Example }): JSX.Element {
  const what = isText(example) ? example : "this image";
  return (
    <li class={`chip ${side}`}>
      {isText(example) ? <span>{example}</span> : <Thumb image={example.image} />}
      <button type="button" title={`Without ${what}`} aria-label={`Remove ${what}`} onClick={() => void removeExample(side, example)}>
        <Cross />
      </button>
    </li>
  );
}
