/** Reading and telling the kernel of devices, below /sys. */
import { readdir, readFile, realpath } from "node:fs/promises";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../executor/exec.js";
import type { Exec } from "../executor/exec.js";

/** One value of /sys, without its line break; empty when it is not there or cannot be read now. */
export async function sysText(path: string): Promise<string> {
  return (await readFile(path, "utf8").catch(() => "")).trim();
}

export async function sysEntries(folder: string): Promise<readonly string[]> {
  const names: string[] = await readdir(folder).catch(() => []);
  return names.toSorted();
}

export async function sysReal(path: string): Promise<string> {
  return realpath(path).catch(() => "");
}

/**
 * Writes one value to /sys. By a process of its own, since such a write can hang as long as the device does,
 * and a thread of this one cannot be given up.
 */
export async function tellKernel(
  exec: Exec,
  path: string,
  value: string,
  { signal, timeoutMs }: { readonly signal: AbortSignal; readonly timeoutMs: number },
): Promise<void> {
  try {
    await exec("tee", ["--", path], { signal, timeoutMs, input: value });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const seconds = Math.round(timeoutMs / 1000);
    throw new StorageError(
      error.exitCode < 0 ? error.code : "unavailable",
      `the kernel did not take "${value.trim()}" at ${path}${error.exitCode < 0 ? ` within ${seconds} s` : `: ${error.stderr.trim()}`}; is the device, or the session it comes through, hanging? Look at dmesg`,
      { ...error.data, path },
      { cause: error },
    );
  }
}
