/** A grid of equal cells of which only those near the window are in the page. Pure arithmetic. */

export interface Layout {
  columns: number;
  cell: number;
  row: number;
  gap: number;
}

/** As many columns as fit. `caption` is the height of the text under each square picture. */
export function layoutOf(width: number, least: number, gap: number, caption: number): Layout {
  const columns = Math.max(2, Math.floor((width + gap) / (least + gap)));
  const cell = (width - gap * (columns - 1)) / columns;
  return { columns, cell, row: cell + caption + gap, gap };
}

export interface Shown {
  first: number;
  last: number;
  offset: number;
  height: number;
}

/** The cells in rows within `top` to `top + height` and one more row on either side, `most` at most. */
export function shownOf(layout: Layout, total: number, top: number, height: number, most = 140): Shown {
  const rows = Math.ceil(total / layout.columns);
  const above = Math.min(Math.max(0, Math.floor(top / layout.row) - 1), Math.max(0, rows - 1));
  const below = Math.min(rows, Math.ceil((top + height) / layout.row) + 1, above + Math.floor(most / layout.columns));
  return {
    first: above * layout.columns,
    last: Math.min(total, Math.max(below, above) * layout.columns),
    offset: above * layout.row,
    height: Math.max(0, rows * layout.row - layout.gap),
  };
}

export type Move = "left" | "right" | "up" | "down" | "home" | "end" | "page-up" | "page-down";

/** Where the cursor goes. */
export function moved(at: number, move: Move, total: number, columns: number, rows: number): number {
  const page = Math.max(1, rows - 1) * columns;
  const by = { left: -1, right: 1, up: -columns, down: columns, "page-up": -page, "page-down": page };
  const to = move === "home" ? 0 : move === "end" ? total - 1 : at + by[move];
  if ((move === "up" || move === "down") && (to < 0 || to >= total)) return at;
  return Math.min(Math.max(0, to), total - 1);
}
