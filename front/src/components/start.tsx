/** A first visit: what can be asked, and some pictures to begin with. */

import type { JSX } from "preact";
import { resolved } from "../api";
import { ask, begin } from "../editing";
import * as store from "../store";
import { count, nameOf } from "../words";
import { Picture } from "./picture";

export function Start(): JSX.Element {
  const start = store.start.value;
  const collection = store.collection.value;
  return (
    <section class="start">
      <h1>What are you looking for?</h1>
      <p class="lead">
        {collection ? <>Describe it, and see why each of {count(collection.count)} pictures is found or left out.</> : store.info.value ? "There is no collection here yet." : "\u00a0"}
      </p>
      {start?.texts.length ? (
        <p class="try">
          {start.texts.map((text) => (
            <button type="button" key={text} onClick={() => void ask(text)}>{text}</button>
          ))}
        </p>
      ) : null}
      {start?.items.length ? (
        <>
          <p class="faint">Or begin with a picture</p>
          <ul class="wall">
            {start.items.map((item) => (
              <li key={item.id}><button type="button" onClick={() => void begin({ image: item.id })}><Picture src={resolved(item.thumb)} alt={nameOf(item.key)} /></button></li>
            ))}
          </ul>
        </>
      ) : null}
    </section>
  );
}
