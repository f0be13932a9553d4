/** A picture of an item. */

import type { JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

/** Once it is out of the page nobody waits for it: browsers ask a service for six things at a time. */
export function Picture(props: JSX.IntrinsicElements["img"]): JSX.Element {
  const image = useRef<HTMLImageElement>(null);
  useLayoutEffect(() => {
    const element = image.current;
    return () => element?.removeAttribute("src");
  }, []);
  return <img {...props} ref={image} />;
}
