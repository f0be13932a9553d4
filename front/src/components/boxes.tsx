/** Boxes over a picture that is shown whole in the middle of its frame; they follow the frame's size. */

import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { Hit } from "../answers";
import { fitted, placed } from "../boxes";
import { score } from "../words";

export function Boxes({ hit }: { hit: Hit }): JSX.Element {
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
        return <span key={i} class="box" style={style} title={box[4] == null ? "" : score(box[4])} />;
      })}
    </div>
  );
}
