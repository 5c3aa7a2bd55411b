/**
 * Time limits that say what was waited for. A container runtime that gets no answer hangs, or gives up
 * without a word; so every call gets its answer in time, even when a process that cannot be killed holds
 * it up.
 */
import { StorageError } from "@libstorage/model";
import type { VolumeService } from "@libstorage/model";
import { commandText } from "../executor/exec.js";
import type { Exec } from "../executor/exec.js";
import { noting, watched } from "../host/steps.js";

/** How long what was begun may take to be taken back before the caller is answered. */
const GRACE_MS = 5_000;

type Call = (...args: readonly unknown[]) => Promise<unknown>;

/** The same service; while a call runs, it is what is waited for. */
export function watchedService(service: VolumeService, address: string): VolumeService {
  return new Proxy(service, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== "function") return member;
      const step = `the server ${address} to answer ${String(name)}`;
      return (...args: readonly unknown[]) => noting(step, () => (member as Call)(...args));
    },
  });
}

/** The same door; while a command runs, it is what is waited for. */
export function watchedExec(exec: Exec): Exec {
  return (file, args, options) =>
    noting(`"${commandText(file, args)}"`, () => exec(file, args, options));
}

/**
 * Runs `act` with a signal that aborts when time is up or `ended` aborts, and answers soon after that,
 * whatever `act` does.
 * @param what for the error: `VolumeDriver.Mount of web1`
 * @throws {StorageError} `deadline-exceeded`, naming what was waited for
 */
export async function withTimeLimit<T>(
  what: string,
  limitMs: number,
  ended: AbortSignal,
  act: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const steps = new Set<string>();
  const timeUp = new AbortController();
  let tooLate: StorageError | undefined;
  let grace: NodeJS.Timeout | undefined;
  let abandon: (error: StorageError) => void = () => {};
  const abandoned = new Promise<never>((_resolve, reject) => (abandon = reject));
  const limit = setTimeout(() => {
    const waited = [...steps].join(" and ");
    const error = new StorageError(
      "deadline-exceeded",
      `${what} did not end within ${limitMs / 1000} s${waited === "" ? "" : `: it waited for ${waited}`}; look at that, then try again`,
      { waitedFor: [...steps] },
    );
    tooLate = error;
    timeUp.abort();
    grace = setTimeout(() => abandon(error), GRACE_MS);
  }, limitMs);
  try {
    const signal = AbortSignal.any([timeUp.signal, ended]);
    const running = watched(steps, () => act(signal));
    // Whoever is abandoned may still fail later.
    running.catch(() => {});
    return await Promise.race([running, abandoned]);
  } catch (error) {
    throw tooLate !== undefined && isEnded(error) ? tooLate : error;
  } finally {
    clearTimeout(limit);
    clearTimeout(grace);
  }
}

function isEnded(error: unknown): boolean {
  if (!(error instanceof StorageError))
    return error instanceof Error && error.name === "AbortError";
  return error.code === "cancelled" || error.code === "deadline-exceeded";
}
