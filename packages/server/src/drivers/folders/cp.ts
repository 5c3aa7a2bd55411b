/** cp(1) of GNU coreutils: copies a folder as it is. */
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";
import { usedBytes } from "./du.js";
import { NO_TIME_LIMIT_MS } from "./time-limit.js";
import { WrittenBytes } from "./written-bytes.js";

/**
 * Copies the content and the attributes of folder `from` to folder `to`, which is made if it is missing.
 * Hard links, extended attributes, access lists, times, owners and holes are kept; blocks are shared where
 * the file system can. Tells the progress in bytes. Killed with the operation.
 * @throws {StorageError} `aborted` when files vanished meanwhile
 */
export async function copyTree(from: string, to: string, context: OpContext): Promise<void> {
  const total = await usedBytes(context, from);
  const args = ["-a", "-T", "--reflink=auto", "--sparse=auto", "--", from, to];
  const written = new WrittenBytes(total, context);
  const onStart = (pid: number): void => written.watch(pid);
  try {
    await context.exec("cp", args, context.signal, { timeoutMs: NO_TIME_LIMIT_MS, onStart });
    written.done();
  } catch (error) {
    if (!(error instanceof CommandError) || !isVanished(error.stderr)) throw error;
    throw new StorageError(
      "aborted",
      `files of ${from} vanished while they were copied; stop what writes there and try again`,
      error.data,
      { cause: error },
    );
  } finally {
    written.stop();
  }
}

function isVanished(stderr: string): boolean {
  return /cannot (?:stat|open|access|read).*No such file or directory/.test(stderr);
}
