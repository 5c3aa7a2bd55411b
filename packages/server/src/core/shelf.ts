/** Records in memory: reads never wait for a command. */
interface Named {
  readonly id: string;
  readonly name: string;
}

/** Records by id, their order, and an index by name. */
export class Shelf<R extends Named> {
  readonly #records = new Map<string, R>();
  /** Made when a name is first asked for, so that a start does not wait for it. */
  #idsByName: Map<string, Set<string>> | undefined;
  #order: readonly R[] | undefined;

  get size(): number {
    return this.#records.size;
  }

  get(id: string): R | undefined {
    return this.#records.get(id);
  }

  /** The record of that name, without case; of several the first by id. */
  named(name: string): R | undefined {
    const [first] = this.allNamed(name);
    return first;
  }

  allNamed(name: string): R[] {
    const ids = this.#names().get(name.toLowerCase()) ?? [];
    return [...ids].toSorted().flatMap((id) => this.#records.get(id) ?? []);
  }

  /** All records in the order of their ids. The same array while nothing changed. */
  all(): readonly R[] {
    this.#order ??= [...this.#records.values()].toSorted(byID);
    return this.#order;
  }

  put(record: R): void {
    const before = this.#records.get(record.id);
    if (before !== undefined && before.name !== record.name) this.#forgetName(before);
    this.#records.set(record.id, record);
    this.#rememberName(record);
    this.#order = undefined;
  }

  remove(id: string): boolean {
    const record = this.#records.get(id);
    if (record === undefined) return false;
    this.#records.delete(id);
    this.#forgetName(record);
    this.#order = undefined;
    return true;
  }

  replaceAll(records: readonly R[]): void {
    this.#records.clear();
    this.#idsByName = undefined;
    this.#order = undefined;
    for (const record of records) this.#records.set(record.id, record);
  }

  #names(): Map<string, Set<string>> {
    if (this.#idsByName === undefined) {
      this.#idsByName = new Map();
      for (const record of this.#records.values()) this.#rememberName(record);
    }
    return this.#idsByName;
  }

  #rememberName({ id, name }: R): void {
    const key = name.toLowerCase();
    const ids = this.#idsByName?.get(key);
    if (ids === undefined) this.#idsByName?.set(key, new Set([id]));
    else ids.add(id);
  }

  #forgetName({ id, name }: R): void {
    const key = name.toLowerCase();
    const ids = this.#idsByName?.get(key);
    ids?.delete(id);
    if (ids?.size === 0) this.#idsByName?.delete(key);
  }
}

function byID(a: Named, b: Named): number {
  return a.id < b.id ? -1 : 1;
}
