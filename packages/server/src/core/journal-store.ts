/** Opens the journal of a folder, whatever state it is in. */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { CommandError } from "./exec.js";
import type { OpContext } from "./driver.js";
import { Journal } from "./journal.js";
import type { JournalOptions } from "./journal.js";

const CHECK = fileURLToPath(new URL("journal-check.js", import.meta.url));
const Report = v.object({ entries: v.number(), last: v.number(), altered: v.array(v.number()) });

export interface OpenedJournal {
  readonly journal: Journal;
  /** Closes the journal, and notes that it was closed in order. */
  readonly close: () => Promise<void>;
  /** What is wrong with it, for people; empty when it is sound. */
  readonly warnings: readonly string[];
  /** Whether it may have lost ends of operations, so that nothing must be taken back because of it. */
  readonly isIncomplete: boolean;
}

/** What was noted when the journal was closed in order. */
interface Note {
  readonly stamp: string;
  readonly last: number;
}

/**
 * Opens the journal below `folder`. One that was not closed in order, or was changed since, is read through
 * by another process first. A damaged one is set aside, what can be read of it is kept, and the loss is
 * told; the volumes are not concerned.
 */
export async function openJournal(
  folder: string,
  context: OpContext,
  options: JournalOptions = {},
): Promise<OpenedJournal> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const current = join(folder, "current");
  const note = join(folder, "closed");
  const closed = await readNote(note);
  const isAsClosed = closed !== undefined && closed.stamp === (await stampOf(current));
  const warnings = isAsClosed ? [] : await examine(folder, current, context);
  await rm(note, { force: true });
  const journal = Journal.open(current, options);
  if (closed !== undefined && journal.lastSeq < closed.last && warnings.length === 0)
    warnings.push(
      `the journal ends with entry ${journal.lastSeq}, but was closed after ${closed.last}: it was damaged or replaced by an older one; no volume is concerned`,
    );
  const close = async (): Promise<void> => {
    const last = await journal.close();
    // Without the note, as on a full disk, the next start only takes longer.
    const text = `${await stampOf(current)}\n${last}\n`;
    await writeFile(note, text, { mode: 0o600 }).catch(() => {});
  };
  return { journal, warnings, isIncomplete: warnings.length > 0, close };
}

async function stampOf(current: string): Promise<string> {
  try {
    const { size, mtimeMs, ino } = await stat(join(current, "data.mdb"));
    return `${ino} ${size} ${mtimeMs}`;
  } catch {
    return "missing";
  }
}

async function readNote(path: string): Promise<Note | undefined> {
  const text = await readFile(path, "utf8").catch(() => "");
  const [stamp = "", last = ""] = text.split("\n");
  return /^\d+$/.test(last) ? { stamp, last: Number(last) } : undefined;
}

/** @returns what is wrong, for people */
async function examine(folder: string, current: string, context: OpContext): Promise<string[]> {
  if (!existsSync(current)) return [];
  // A checker that is not there says nothing about the journal.
  if (!existsSync(CHECK))
    throw new StorageError("internal", `${CHECK} is missing; build or install the server again`);
  try {
    return alterations((await check(current, context)).altered);
  } catch (error) {
    return [await setAside(folder, current, context, error)];
  }
}

async function check(
  folder: string,
  { exec, signal }: OpContext,
): Promise<v.InferOutput<typeof Report>> {
  const { stdout } = await exec(process.execPath, [CHECK, folder], signal, { timeoutMs: 300_000 });
  return v.parse(Report, JSON.parse(stdout));
}

function alterations(altered: readonly number[]): string[] {
  if (altered.length === 0) return [];
  const some = altered.slice(0, 10).join(", ");
  return [
    `the journal was changed from outside: ${altered.length} entries do not match their hash (${some})`,
  ];
}

async function setAside(
  folder: string,
  current: string,
  context: OpContext,
  cause: unknown,
): Promise<string> {
  const damaged = join(folder, `damaged-${new Date().toISOString().replaceAll(":", "-")}`);
  const salvaged = join(folder, "salvaged");
  await context.files.removeTree(salvaged);
  const { exec, signal } = context;
  await exec(process.execPath, [CHECK, current, salvaged], signal, { timeoutMs: 300_000 }).catch(
    () => {},
  );
  const report = existsSync(salvaged)
    ? await check(salvaged, context).catch(() => undefined)
    : undefined;
  await context.files.rename(current, damaged);
  if (report !== undefined) await context.files.rename(salvaged, current);
  const kept =
    report === undefined
      ? "nothing of it could be read, so the history and the answers to repeated requests are lost"
      : `${report.entries} entries up to number ${report.last} were kept, later ones are lost`;
  return `the journal was damaged (${reason(cause)}): ${kept}; no volume is concerned; the damaged file is kept as ${damaged}`;
}

function reason(error: unknown): string {
  if (error instanceof CommandError && error.exitCode < 0) return "reading it ended the process";
  if (error instanceof CommandError)
    return (
      error.stderr
        .trim()
        .split("\n")
        .find((line) => /Error/.test(line)) ?? error.message
    );
  return error instanceof Error ? error.message : String(error);
}
