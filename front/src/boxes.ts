/** Boxes of a hit onto its picture. Pure. */

/** x, y, width and height as fractions of the picture, how sure, and of which class. */
export type Box = [x: number, y: number, w: number, h: number, score?: number | null, label?: string | null];

export interface Rect {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** Where a picture lies that is shown whole in the middle of a frame (object-fit: contain). */
export function fitted(width: number, height: number, frame: { w: number; h: number }): Rect {
  const scale = Math.min(frame.w / width, frame.h / height);
  const w = width * scale;
  const h = height * scale;
  return { x: (frame.w - w) / 2, y: (frame.h - h) / 2, w, h };
}

export function placed(box: Box, picture: Rect): Rect {
  const [x, y, w, h] = box;
  return { x: picture.x + x * picture.w, y: picture.y + y * picture.h, w: w * picture.w, h: h * picture.h };
}
