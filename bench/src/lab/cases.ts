/** What is measured in the lab. */
import type { Figure } from "../measure.js";
import { lioAgainstTargetcli } from "./lio-cases.js";
import { lvmAgainstCommand } from "./lvm-cases.js";

export interface LabCase {
  readonly name: string;
  readonly run: (say: (text: string) => void) => Promise<Figure[]>;
}

export const LAB_CASES: readonly LabCase[] = [
  { name: "lvm", run: lvmAgainstCommand },
  { name: "lio", run: lioAgainstTargetcli },
];
