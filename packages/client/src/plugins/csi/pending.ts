/** Which calls are under way, so that a second one for the same object is told what it meets. */
import { CsiError } from "./status.js";

interface Running {
  readonly what: string;
  readonly since: number;
}

export class Pending {
  readonly #running = new Map<string, Running>();

  /**
   * Runs `act` unless another call works on one of the objects.
   * @param keys such as `volume vfs-000`; several are taken together or not at all
   * @throws {CsiError} ABORTED, naming the call that is running
   */
  async alone<T>(what: string, keys: readonly string[], act: () => Promise<T>): Promise<T> {
    for (const key of keys) {
      const running = this.#running.get(key);
      if (running === undefined) continue;
      const seconds = Math.round((performance.now() - running.since) / 1000);
      throw new CsiError(
        "ABORTED",
        `${running.what} has been running for ${seconds} s on the ${key}: wait until it has ended, then call ${what} again`,
      );
    }
    for (const key of keys) this.#running.set(key, { what, since: performance.now() });
    try {
      return await act();
    } finally {
      for (const key of keys) this.#running.delete(key);
    }
  }

  /** What runs now, for the log of a plugin that ends. */
  all(): readonly string[] {
    return [...this.#running].map(([key, { what }]) => `${what} on the ${key}`);
  }
}
