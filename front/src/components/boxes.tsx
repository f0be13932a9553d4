/** Boxes over a picture that is shown whole in the middle of its frame; they follow the frame's size. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { Hit } from "../answers";
import { type Box, fitted, placed } from "../boxes";
import { score } from "../words";

/** With `onCrop`, a click on a box gives its part of the picture. */
export function Boxes({ hit, onCrop }: { hit: Hit; onCrop?: (box: Box, picture: HTMLImageElement) => void }): JSX.Element {
  const layer = useRef<HTMLDivElement>(null);
  const frame = useSignal({ w: 0, h: 0 });
  const size = useSignal({ w: hit.w ?? 1, h: hit.h ?? 1 });
  useLayoutEffect(() => {
    const element = layer.current as HTMLDivElement;
    const watcher = new ResizeObserver(() => (frame.value = { w: element.clientWidth, h: element.clientHeight }));
    watcher.observe(element);
    const image = element.parentElement?.querySelector("img");
    const natural = (): void => {
      if (image?.naturalWidth) size.value = { w: image.naturalWidth, h: image.naturalHeight };
    };
    natural();
    image?.addEventListener("load", natural);
    return () => {
      watcher.disconnect();
      image?.removeEventListener("load", natural);
    };
  }, []);
  const picture = fitted(size.value.w, size.value.h, frame.value);
  return (
    <div class="boxes" ref={layer}>
      {(hit.boxes ?? []).map((box, i) => {
        const { x, y, w, h } = placed(box, picture);
        const style = { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px` };
        const said = box[4] == null ? "" : score(box[4]);
        if (!onCrop) return <span key={i} class="box" style={style} title={said} />;
        const pick = (): void => {
          const image = layer.current?.parentElement?.querySelector("img");
          if (image) onCrop(box, image);
        };
        return <button type="button" key={i} class="box" style={style} title="Find what is in this box" aria-label={`Find what is in this box, ${said}`} onClick={pick}><b>{said}</b></button>;
      })}
    </div>
  );
}
