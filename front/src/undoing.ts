/** What can be taken back, the last first. */

import { untoast } from "./notices";

const MOST = 50;
const steps: (() => unknown)[] = [];

export function pushUndo(step: () => unknown): void {
  steps.push(step);
  if (steps.length > MOST) steps.shift();
}

/** Take the last step back. */
export function undo(): void {
  const step = steps.pop();
  untoast();
  if (step) void step();
}
