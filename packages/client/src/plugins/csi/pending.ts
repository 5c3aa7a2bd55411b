/** Which calls are under way, so that a second one for the same object is told what it meets. */
import { CsiError } from "./status.js";

interface Running {
  readonly what: string;
  readonly since: number;
  /** Whether others may work on the object meanwhile that share it, too. */
  readonly isShared: boolean;
}

export class Pending {
  readonly #running = new Map<string, Set<Running>>();

  /**
   * Runs `act` unless another call works on one of the objects.
   * @param keys such as `volume vfs-000`; several are taken together or not at all
   * @param shared objects that other calls may share, but that nobody may have alone meanwhile
   * @throws {CsiError} ABORTED, naming the call that is running
   */
  async alone<T>(
    what: string,
    keys: readonly string[],
    act: () => Promise<T>,
    shared: readonly string[] = [],
  ): Promise<T> {
    const wanted = [
      ...keys.map((key) => ({ key, isShared: false })),
      ...shared.map((key) => ({ key, isShared: true })),
    ];
    for (const { key, isShared } of wanted) {
      const all = [...(this.#running.get(key) ?? [])];
      const running = all.find((one) => !isShared || !one.isShared);
      if (running === undefined) continue;
      const seconds = Math.round((performance.now() - running.since) / 1000);
      throw new CsiError(
        "ABORTED",
        `${running.what} has been running for ${seconds} s on the ${key}: wait until it has ended, then call ${what} again`,
      );
    }
    const since = performance.now();
    const taken = wanted.map(({ key, isShared }) => this.#take(key, { what, since, isShared }));
    try {
      return await act();
    } finally {
      for (const release of taken) release();
    }
  }

  #take(key: string, running: Running): () => void {
    const all = this.#running.get(key) ?? new Set();
    this.#running.set(key, all.add(running));
    return () => {
      all.delete(running);
      if (all.size === 0) this.#running.delete(key);
    };
  }

  /** What runs now, for the log of a plugin that ends. */
  all(): readonly string[] {
    return [...this.#running].flatMap(([key, all]) =>
      [...all].map(({ what }) => `${what} on the ${key}`),
    );
  }
}
