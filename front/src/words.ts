/** Numbers and examples in words. Pure. */

import { type Example, isText } from "./classes";

export const count = (n: number): string => Math.round(n).toLocaleString("en");

export const score = (n: number): string => n.toFixed(2);

export const signed = (n: number): string => (n < 0 ? "−" : "+") + Math.abs(n).toFixed(2);

/** Log odds as "87 %". */
export const likely = (odds: number): string => `${Math.round(100 / (1 + Math.exp(-odds)))} %`;

export const plural = (n: number, one: string, many = `${one}s`): string => `${count(n)} ${n === 1 ? one : many}`;

export const quoted = (example: Example): string => (isText(example) ? `“${example}”` : "an example image");

/** "2.3 %", "under 0.1 %", "none". */
export function share(n: number, of: number): string {
  const percent = (100 * n) / of;
  if (n > 0 && percent < 0.1) return "under 0.1 %";
  return n === 0 ? "none" : `${percent < 10 ? percent.toFixed(1) : Math.round(percent)} %`;
}

export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function bytes(n: number): string {
  const units = ["B", "kB", "MB", "GB"];
  const i = Math.min(units.length - 1, n < 1 ? 0 : Math.floor(Math.log10(n) / 3));
  return `${(n / 1000 ** i).toFixed(i && n / 1000 ** i < 10 ? 1 : 0)} ${units[i]}`;
}

/** The name of an item: the last part of its key. */
export const nameOf = (key: string): string => key.split("/").at(-1) || key;
