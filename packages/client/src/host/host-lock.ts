/** One process of this host at a time works on one volume, however the last one ended. */
import { mkdir, open, rm, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../executor/exec.js";
import type { Exec } from "../executor/exec.js";

/** flock(1) exits so when its time is up. */
const EXIT_HELD = 1;

export interface LockOptions {
  readonly waitMs: number;
  readonly signal: AbortSignal;
  /** Asked at the end: whether the file stays for the next time. Default: it stays. */
  readonly isNeeded?: () => Promise<boolean>;
}

/**
 * Runs `act` under the lock of a file. The lock belongs to the open file, which flock(1) only inherits,
 * so it ends with this process and no number of a dead one can hold it.
 * @throws {StorageError} `aborted`, naming the process that has it, when `waitMs` are over
 */
export async function withHostLock<T>(
  exec: Exec,
  file: string,
  { waitMs, signal, isNeeded }: LockOptions,
  act: () => Promise<T>,
): Promise<T> {
  await mkdir(dirname(file), { recursive: true, mode: 0o755 });
  const deadline = performance.now() + waitMs;
  for (;;) {
    const handle = await open(file, "a+", 0o600);
    try {
      await take(exec, handle, file, {
        waitMs: Math.max(1000, deadline - performance.now()),
        signal,
      });
      // Whoever had it may have removed the file; a lock of that one keeps nobody out.
      if (await isStillThere(handle, file)) {
        await handle.truncate(0);
        await handle.write(String(process.pid), 0);
        try {
          return await act();
        } finally {
          if ((await isNeeded?.().catch(() => true)) === false) await rm(file, { force: true });
          await handle.truncate(0).catch(() => {});
        }
      }
    } finally {
      await handle.close();
    }
  }
}

async function isStillThere(handle: FileHandle, file: string): Promise<boolean> {
  const own = await handle.stat();
  const there = await stat(file).catch(() => undefined);
  return there?.ino === own.ino && there.dev === own.dev;
}

async function take(
  exec: Exec,
  handle: FileHandle,
  file: string,
  { waitMs, signal }: { readonly waitMs: number; readonly signal: AbortSignal },
): Promise<void> {
  const seconds = String(Math.max(1, Math.round(waitMs / 1000)));
  await exec("flock", ["--exclusive", "--wait", seconds, "0"], {
    signal,
    stdin: handle.fd,
    timeoutMs: waitMs + 5_000,
  }).catch(async (error: unknown) => {
    if (!(error instanceof CommandError) || error.exitCode !== EXIT_HELD) throw error;
    const holder = (await handle.readFile("utf8").catch(() => "")).trim();
    throw new StorageError(
      "aborted",
      `another process of this host works on the volume${holder === "" ? "" : ` (pid ${holder})`} for more than ${seconds} s; wait for it, or end it`,
      { lock: file, holder },
    );
  });
}
