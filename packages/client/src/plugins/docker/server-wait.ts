/** At boot, containers may be started before the server is up. */
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { CallContext } from "@libstorage/model";

const EVERY_MS = 500;

/** Tries again, for a bounded time, as long as no server answers. Every other error counts at once. */
export async function untilAnswered<T>(
  waitMs: number,
  { signal }: CallContext,
  act: () => Promise<T>,
): Promise<T> {
  const deadline = performance.now() + waitMs;
  for (;;)
    try {
      return await act();
    } catch (error) {
      const isAway = error instanceof StorageError && error.code === "unavailable";
      if (!isAway || signal?.aborted === true || performance.now() + EVERY_MS > deadline)
        throw error;
      await sleep(EVERY_MS, undefined, { ...(signal && { signal }) }).catch(() => {});
    }
}
