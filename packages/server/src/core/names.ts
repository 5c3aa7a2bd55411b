/** Names of volumes and snapshots in one service: whether a new one is free. */
import { StorageError } from "@libstorage/model";
import type { Inventory } from "./inventory.js";
import type { JournalEntry } from "./journal-entry.js";
import type { Caller, Operations } from "./operations.js";

type Kind = "volume" | "snapshot";

interface Named {
  readonly name: string;
  readonly settings: { readonly uniqueNames: boolean };
  readonly inventory: Inventory;
}

export class Names {
  readonly #service: Named;
  readonly #operations: Operations;
  readonly #inMaking = new Set<string>();

  constructor(service: Named, operations: Operations) {
    this.#service = service;
    this.#operations = operations;
  }

  /**
   * Where names are unique, or the caller wants this one to be, `takeName` refuses one that is taken, and
   * holds it until the object is there.
   */
  taking<T>(
    kind: Kind,
    name: string,
    { onlyIfNew = false }: Caller,
    start: (takeName: () => void) => Promise<T>,
  ): Promise<T> {
    const { settings, inventory } = this.#service;
    const key = `${kind} ${name.toLowerCase()}`;
    let isMine = false;
    const takeName = (): void => {
      const isUnique = onlyIfNew || (kind === "volume" && settings.uniqueNames);
      if (!isUnique) return;
      const taken = inventory[`${kind}s`].named(name);
      if (taken !== undefined || this.#inMaking.has(key)) throw this.#taken(kind, name, taken);
      this.#inMaking.add(key);
      isMine = true;
    };
    return start(takeName).finally(() => {
      if (isMine) this.#inMaking.delete(key);
    });
  }

  #taken(kind: Kind, name: string, taken: { readonly id: string } | undefined): StorageError {
    const { name: own } = this.#service;
    const id = taken?.id;
    const isUnfinished = ({ service, volumeID, snapshotID }: JournalEntry): boolean =>
      service === own && id === (snapshotID ?? volumeID);
    // What recovery is about to take away, or has not yet looked at, is not there for anybody.
    if (id !== undefined && this.#operations.journal.openIntents().some(isUnfinished))
      return new StorageError(
        "aborted",
        `service ${own} is still working on the ${kind} ${id}, which is named ${name}; try again`,
        { name, [`${kind}ID`]: id },
      );
    return new StorageError(
      "already-exists",
      `service ${own} has a ${kind} named ${name} already${id === undefined ? ", which is being made" : `: ${id}`}; choose another name or use that ${kind}`,
      { name, ...(id !== undefined && { [`${kind}ID`]: id }) },
    );
  }
}
