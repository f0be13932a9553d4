/** Small pictures, drawn. */

import type { JSX } from "preact";

function icon(path: string): () => JSX.Element {
  return () => (
    <svg class="icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d={path} />
    </svg>
  );
}

export const Camera = icon("M3 6.5h3l1.4-2h5.2l1.4 2h3v9H3zM10 13.4a2.9 2.9 0 1 0 0-5.8 2.9 2.9 0 0 0 0 5.8z");
export const Cross = icon("M5 5l10 10M15 5L5 15");
export const Check = icon("M4 10.5l4 4 8-9");
export const Plus = icon("M10 4v12M4 10h12");
export const Minus = icon("M4 10h12");
export const Similar = icon("M3.5 3.5h8v8h-8zM8.5 14v2.5h8v-8H14");
export const Left = icon("M12 4l-6 6 6 6");
export const Right = icon("M8 4l6 6-6 6");
export const Down = icon("M5 7.5l5 5 5-5");
export const Picture = icon("M3 4h14v12H3zM3 13l4-4 4 4 2-2 4 4M12.5 8.2a.7.7 0 1 0 0-1.4.7.7 0 0 0 0 1.4z");
