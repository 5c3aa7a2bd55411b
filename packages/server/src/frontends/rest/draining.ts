/** Waiting for a reader who takes an answer slower than it comes. */
import type { ServerResponse } from "node:http";

/** How long one waits for its reader to take what was sent. */
const DRAIN_MS = 30_000;

/** Resolves when there is room again, or the reader has gone; one that takes nothing is cut off. */
export function drained(res: ServerResponse, limitMs = DRAIN_MS): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      res.off("drain", done);
      res.off("close", done);
      resolve();
    };
    const timer = setTimeout(() => {
      res.destroy();
      done();
    }, limitMs);
    res.once("drain", done);
    res.once("close", done);
  });
}
