import type { EntryFields } from "./journal-entry.js";

/** The lock of a volume or snapshot of a service. */
export function lockKeyOf(service: string, id: string): string {
  return `${service}/${id}`;
}

/** The lock of what a journal entry is about. */
export function lockKeyOfEntry(
  entry: Pick<EntryFields, "service" | "volumeID" | "snapshotID" | "path">,
): string {
  return lockKeyOf(entry.service, entry.path ?? entry.snapshotID ?? entry.volumeID ?? "");
}

/** One operation per volume, many volumes at once. Only the core locks; drivers take no lock. */
export class Locks {
  readonly #tails = new Map<string, Promise<void>>();

  /**
   * Runs the tasks of one key one at a time, in order of arrival; other keys do not wait. A composite
   * operation locks its parts in turn, never one inside another.
   */
  run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key);
    const result = before === undefined ? task() : before.then(task);
    const tail = result
      .then(
        () => {},
        () => {},
      )
      .then(() => {
        if (this.#tails.get(key) === tail) this.#tails.delete(key);
      });
    this.#tails.set(key, tail);
    return result;
  }

  /** Resolves once everything that waits or runs now has ended. */
  async idle(): Promise<void> {
    await Promise.all(this.#tails.values());
  }
}
