/** What an export can be. It takes what is chosen, or else all of the view. */

import type { JSX } from "preact";
import * as store from "../store";
import { exportItems } from "../working";
import { count } from "../words";
import { Menu } from "./menu";

export const FORMATS: Record<string, string> = {
  csv: "CSV",
  parquet: "Parquet",
  jsonl: "JSON lines",
  coco: "COCO",
  yolo: "YOLO",
  webdataset: "WebDataset",
  folders: "Folders of pictures",
};

export function ExportMenu(): JSX.Element {
  const n = store.allChosen.value ? 0 : store.chosen.value.size;
  const all = store.whole.value;
  return (
    <Menu label="Export" class="quiet export" disabled={!n && !all}>
      <p class="head">{count(n || all)} {n ? "chosen" : "of this view"} as</p>
      {(store.info.value?.formats.export ?? []).map((format) => (
        <button type="button" key={format} onClick={() => void exportItems(format)}>{FORMATS[format] ?? format}</button>
      ))}
    </Menu>
  );
}
