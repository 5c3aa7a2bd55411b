/** cp(1) of GNU coreutils: copies a folder as it is. */
import { readFileSync } from "node:fs";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";
import { usedBytes } from "./du.js";
import { NO_TIME_LIMIT_MS } from "./time-limit.js";

const POLL_MS = 200;

/** What a process has written so far, or undefined when it cannot be told. @see proc(5), /proc/pid/io */
function writtenBytes(pid: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/io`, "latin1");
    const written = /^wchar: (\d+)$/m.exec(text)?.[1];
    return written === undefined ? undefined : Number(written);
  } catch {
    return undefined;
  }
}

/**
 * Copies the content and the attributes of folder `from` to folder `to`, which is made if it is missing.
 * Hard links, extended attributes, access lists, times, owners and holes are kept; blocks are shared where
 * the file system can. Tells the progress in bytes. Killed with the operation.
 * @throws {StorageError} `aborted` when files vanished meanwhile
 */
export async function copyTree(from: string, to: string, context: OpContext): Promise<void> {
  const total = await usedBytes(context, from);
  const args = ["-a", "-T", "--reflink=auto", "--sparse=auto", "--", from, to];
  let timer: NodeJS.Timeout | undefined;
  const onStart = (pid: number): void => {
    if (total === undefined) return;
    context.progress(0, total, "bytes");
    timer = setInterval(() => {
      const written = writtenBytes(pid);
      if (written !== undefined) context.progress(Math.min(written, total), total, "bytes");
    }, POLL_MS);
  };
  try {
    await context.exec("cp", args, context.signal, { timeoutMs: NO_TIME_LIMIT_MS, onStart });
    if (total !== undefined) context.progress(total, total, "bytes");
  } catch (error) {
    if (!(error instanceof CommandError) || !isVanished(error.stderr)) throw error;
    throw new StorageError(
      "aborted",
      `files of ${from} vanished while they were copied; stop what writes there and try again`,
      error.data,
      { cause: error },
    );
  } finally {
    clearInterval(timer);
  }
}

function isVanished(stderr: string): boolean {
  return /cannot (?:stat|open|access|read).*No such file or directory/.test(stderr);
}
