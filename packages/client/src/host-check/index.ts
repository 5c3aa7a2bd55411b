/**
 * Finds what is left over on this host, and cleans what is safe to clean: what a record of this client names,
 * and what nobody uses. What it cannot prove to be its own it shows and leaves.
 */
import { checkConnections, checkScsi, checkSessions } from "./connections.js";
import { checkLocks, checkLoops, checkTemporaries } from "./files.js";
import type { Check, CheckOptions, Finding, Leftover } from "./leftover.js";
import { checkFolders, checkMounts, checkRecords } from "./mounts.js";
import { checkNbd } from "./nbd.js";
import { checkNfs } from "./nfs.js";

/** Users before what they use. */
const CHECKS: readonly Check[] = [
  checkRecords,
  checkNfs,
  checkMounts,
  checkConnections,
  checkScsi,
  checkSessions,
  checkNbd,
  checkFolders,
  checkLoops,
  checkTemporaries,
  checkLocks,
];

async function handled(
  { kind, what, about, fix, instead = "" }: Leftover,
  isFixing: boolean,
): Promise<Finding> {
  const leftover = { kind, what, about };
  if (fix === undefined) return { ...leftover, state: "left", next: instead };
  if (!isFixing) return { ...leftover, state: "found", next: "cleaned by --fix" };
  try {
    return { ...leftover, state: "fixed", next: await fix() };
  } catch (error) {
    return {
      ...leftover,
      state: "left",
      next: error instanceof Error ? error.message : String(error),
    };
  }
}

export async function checkHost(options: CheckOptions, isFixing: boolean): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const check of CHECKS)
    for (const leftover of await check(options)) findings.push(await handled(leftover, isFixing));
  return findings;
}

export type { Attachments, CheckOptions, Finding, KnownService } from "./leftover.js";
