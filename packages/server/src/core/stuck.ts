/** Operations that failed and could not be cleared up: they wait here until they can. */
import { StorageError } from "@libstorage/model";
import type { JournalEntry } from "./journal-entry.js";
import type { Locks } from "./locks.js";

export interface StuckOperation {
  readonly intent: JournalEntry;
  /** The lock of what it is about. */
  readonly key: string;
  /** Clears up and closes the intent. Runs under the lock. @throws what stands in the way */
  finish(): Promise<void>;
}

export class Stuck {
  readonly #locks: Locks;
  readonly #bySeq = new Map<number, StuckOperation>();

  constructor(locks: Locks) {
    this.#locks = locks;
  }

  get size(): number {
    return this.#bySeq.size;
  }

  all(): readonly StuckOperation[] {
    return [...this.#bySeq.values()];
  }

  add(operation: StuckOperation): void {
    this.#bySeq.set(operation.intent.seq, operation);
  }

  /**
   * To be called under the lock before anything else is done with an object: what is cleared up later
   * would undo what was done meanwhile.
   * @throws {StorageError} `unavailable` while an earlier operation on it cannot be cleared up
   */
  async finishFor(key: string): Promise<void> {
    for (const operation of this.#bySeq.values())
      if (operation.key === key) await this.#finish(operation);
  }

  async #finish(stuck: StuckOperation): Promise<void> {
    const { intent } = stuck;
    // It may have been finished while this call waited for the lock.
    if (!this.#bySeq.has(intent.seq)) return;
    try {
      await stuck.finish();
      this.#bySeq.delete(intent.seq);
    } catch (error) {
      const { operation, volumeID, snapshotID, path } = intent;
      const why = error instanceof Error ? error.message : String(error);
      throw new StorageError(
        "unavailable",
        `an earlier ${operation} of ${path ?? snapshotID ?? volumeID} failed and cannot be cleared up: ${why}; mend this and try again`,
        {
          ...(volumeID !== undefined && { volumeID }),
          ...(snapshotID !== undefined && { snapshotID }),
        },
        { cause: error },
      );
    }
  }

  /** Tries all of them again, each under its lock. @returns what still stands in the way */
  async finishAll(): Promise<readonly StorageError[]> {
    const results = await Promise.allSettled(
      this.all().map((operation) => this.#locks.run(operation.key, () => this.#finish(operation))),
    );
    return results.flatMap((one) =>
      one.status === "rejected" ? [one.reason as StorageError] : [],
    );
  }
}
