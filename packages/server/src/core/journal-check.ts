/**
 * Reads a journal in a process of its own, because a damaged LMDB file can end the process that maps it.
 *
 *     node journal-check.js FOLDER             prints {"entries", "last", "altered"} when it is sound
 *     node journal-check.js FOLDER SALVAGED    copies what can be read into a new journal
 */
import { open } from "lmdb";
import { pathToFileURL } from "node:url";
import { hashOf, isOutcome } from "./journal-entry.js";
import type { JournalEntry } from "./journal-entry.js";

/** How many of the last entries have their hashes compared; older ones were when they were among them. */
const VERIFIED = 20_000;

interface Report {
  entries: number;
  last: number;
  /** Entries whose successor does not carry their hash: changed after they were written. */
  altered: number[];
}

export function readJournal(folder: string): Report {
  const env = open({ path: folder, encoding: "string", maxDbs: 8, readOnly: true });
  const entries = env.openDB<string, number>({
    name: "entries",
    encoding: "string",
    keyEncoding: "uint32",
  });
  const report: Report = { entries: 0, last: 0, altered: [] };
  const total = entries.getCount();
  let before: { seq: number; hash: string } | undefined;
  for (const { key, value } of entries.getRange({})) {
    report.entries += 1;
    if (total - report.entries < VERIFIED) {
      const { seq, prev } = JSON.parse(value) as { seq: number; prev: string };
      if (seq !== key || (before?.seq === seq - 1 && before.hash !== prev))
        report.altered.push(before?.seq ?? seq);
      before = { seq, hash: hashOf(value) };
    }
    report.last = key;
  }
  // Damage often shows only in the other tables.
  for (const name of ["open", "tasks"])
    for (const { value } of env
      .openDB<number, number>({ name, encoding: "json", keyEncoding: "uint32" })
      .getRange({}))
      if (typeof value !== "number") throw new Error(`table ${name} is damaged`);
  for (const name of ["keys", "counters"])
    for (const { value } of env.openDB<number, string>({ name, encoding: "json" }).getRange({}))
      if (typeof value !== "number") throw new Error(`table ${name} is damaged`);
  return report;
}

/** Copies entry by entry, in small synced steps, so that what was copied stays when the rest ends us. */
export function salvageJournal(folder: string, target: string): void {
  const from = open({ path: folder, encoding: "string", maxDbs: 8, readOnly: true });
  const entries = from.openDB<string, number>({
    name: "entries",
    encoding: "string",
    keyEncoding: "uint32",
  });
  const to = open({ path: target, encoding: "string", maxDbs: 8, overlappingSync: false });
  const copy = to.openDB<string, number>({
    name: "entries",
    encoding: "string",
    keyEncoding: "uint32",
  });
  const openIntents = to.openDB<number, number>({
    name: "open",
    encoding: "json",
    keyEncoding: "uint32",
  });
  const tasks = to.openDB<number, number>({
    name: "tasks",
    encoding: "json",
    keyEncoding: "uint32",
  });
  const keys = to.openDB<number, string>({ name: "keys", encoding: "json" });
  const counters = to.openDB<number, string>({ name: "counters", encoding: "json" });
  const raise = (name: string, least: number): void => {
    if ((counters.get(name) ?? 0) < least) counters.putSync(name, least);
  };
  for (const { key, value } of entries.getRange({})) {
    const entry = JSON.parse(value) as JournalEntry;
    to.transactionSync(() => {
      copy.putSync(key, value);
      if (entry.phase === "intent") openIntents.putSync(key, entry.task);
      else if (entry.intent !== undefined) openIntents.removeSync(entry.intent);
      if (entry.idempotencyKey !== undefined && isOutcome(entry))
        keys.putSync(entry.idempotencyKey, key);
      tasks.putSync(entry.task, key);
      raise("task", entry.task + 1);
      for (const [name, value] of Object.entries(entry.counters ?? {})) raise(name, value);
    });
  }
  // Last, because it may be what is damaged; it knows of numbers whose entries were dropped long ago.
  for (const { key, value } of from
    .openDB<number, string>({ name: "counters", encoding: "json" })
    .getRange({}))
    if (Number.isSafeInteger(value)) raise(key, value);
}

const [, script, folder, target] = process.argv;
if (
  folder !== undefined &&
  script !== undefined &&
  import.meta.url === pathToFileURL(script).href
) {
  if (target === undefined) process.stdout.write(JSON.stringify(readJournal(folder)));
  else salvageJournal(folder, target);
}
