/**
 * The logical volumes of the group as this driver saw or left them last. It saves a look before each
 * change; what may be wrong after a failure is forgotten, and looked up again.
 */
import type { LvRow } from "./reports.js";

export class Known {
  #rows = new Map<string, LvRow>();
  /** What was changed while a listing is under way: the listing may be older. */
  readonly #listings = new Set<Set<string>>();

  get(name: string): LvRow | undefined {
    return this.#rows.get(name);
  }

  all(): readonly LvRow[] {
    return [...this.#rows.values()];
  }

  put(row: LvRow): void {
    this.#touch(row.name);
    this.#rows.set(row.name, row);
  }

  /** It is gone, or nobody knows how it stands. */
  forget(name: string): void {
    this.#touch(name);
    this.#rows.delete(name);
  }

  #touch(name: string): void {
    for (const touched of this.#listings) touched.add(name);
  }

  /** Lists anew. @returns the rows as listed, and the names that were changed meanwhile */
  async list(
    look: () => Promise<readonly LvRow[]>,
  ): Promise<{ readonly rows: readonly LvRow[]; readonly touched: ReadonlySet<string> }> {
    const touched = new Set<string>();
    this.#listings.add(touched);
    try {
      const rows = await look();
      return { rows, touched };
    } finally {
      this.#listings.delete(touched);
    }
  }

  /** Takes a listing over, but for what was changed meanwhile. */
  take(rows: readonly LvRow[], touched: ReadonlySet<string>): void {
    const kept = [...this.#rows].filter(([name]) => touched.has(name));
    const fresh = rows.filter(({ name }) => !touched.has(name));
    this.#rows = new Map([...fresh.map((row) => [row.name, row] as const), ...kept]);
  }
}

/** Whether two rows say the same of what the core sees. */
export function isSameRow(a: LvRow, b: LvRow): boolean {
  return (
    a.sizeBytes === b.sizeBytes &&
    a.health === b.health &&
    a.isSnapshotInvalid === b.isSnapshotInvalid &&
    a.tags.length === b.tags.length &&
    a.tags.every((tag) => b.tags.includes(tag))
  );
}
