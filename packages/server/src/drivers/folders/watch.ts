/** Notices what is changed by hand below a root, and not what this driver changes itself. */
import { watch } from "node:fs";
import { basename } from "node:path";
import type { Change } from "../../core/driver.js";
import type { Logger } from "../../core/log.js";
import type { Parsed, Shelf } from "./shelf.js";

/** Events of this long are looked at together, so that a thousand changes a second stay cheap. */
const QUIET_MS = 100;

/** How long an own change is remembered; its events come much sooner. */
const OWN_MS = 10_000;

/** What this driver works at and has done on one shelf. */
export class OwnChanges<T extends Parsed> {
  readonly shelf: Shelf<T>;
  readonly #busy = new Map<string, number>();
  readonly #making = new Set<string>();
  readonly #stamps = new Map<string, { readonly stamp: string; readonly time: number }>();
  /** Own changes need not be remembered while nobody watches. */
  isWatched = false;

  constructor(shelf: Shelf<T>) {
    this.shelf = shelf;
  }

  isBusy(id: string): boolean {
    return this.#busy.has(id);
  }

  /** Whether an id of which one half is there is being made, or its record is gone and its data will be. */
  isOnItsWay(id: string, hasRecord: boolean): boolean {
    return hasRecord ? this.#making.has(id) : this.isBusy(id);
  }

  busyIDs(): ReadonlySet<string> {
    return new Set(this.#busy.keys());
  }

  get isIdle(): boolean {
    return this.#busy.size === 0;
  }

  /** Runs a change of one id. @param isNew whether it makes it */
  async run<R>(id: string, isNew: boolean, act: () => Promise<R>): Promise<R> {
    this.#busy.set(id, (this.#busy.get(id) ?? 0) + 1);
    if (isNew) this.#making.add(id);
    try {
      return await act();
    } finally {
      const left = (this.#busy.get(id) ?? 1) - 1;
      if (left > 0) this.#busy.set(id, left);
      else this.#busy.delete(id);
      if (isNew) this.#making.delete(id);
      if (this.isWatched) this.#remember(id);
    }
  }

  /** Keeps the map in order of time. */
  #remember(id: string): void {
    this.#stamps.delete(id);
    this.#stamps.set(id, { stamp: this.shelf.stamp(id), time: Date.now() });
  }

  /** Whether an id stands as this driver left it. */
  isOwn(id: string): boolean {
    const own = this.#stamps.get(id);
    return own !== undefined && own.stamp === this.shelf.stamp(id);
  }

  /** What somebody else has changed is looked at again, even when it comes to stand as it was. */
  forget(id: string): void {
    this.#stamps.delete(id);
  }

  forgetOld(): void {
    const oldest = Date.now() - OWN_MS;
    for (const [id, { time }] of this.#stamps) {
      if (time > oldest) break;
      this.#stamps.delete(id);
    }
  }
}

/** Both shelves of a root. @returns how to stop */
export function watchShelves<V extends Parsed, S extends Parsed>(
  volumes: OwnChanges<V>,
  snapshots: OwnChanges<S>,
  log: Logger,
  onChange: (change: Change) => void,
): () => void {
  const stops = [
    watchShelf(volumes, log, (volumeIDs) => onChange(volumeIDs === undefined ? {} : { volumeIDs })),
    watchShelf(snapshots, log, (snapshotIDs) =>
      onChange(snapshotIDs === undefined ? {} : { snapshotIDs }),
    ),
  ];
  return () => stops.forEach((stop) => stop());
}

/**
 * @param onChange told of ids; of undefined when anything may have changed
 * @returns how to stop
 */
function watchShelf<T extends Parsed>(
  own: OwnChanges<T>,
  log: Logger,
  onChange: (ids: readonly string[] | undefined) => void,
): () => void {
  const { folder } = own.shelf;
  const pending = new Set<string>();
  let isAnything = false;
  let timer: NodeJS.Timeout | undefined;
  const flush = (): void => {
    timer = undefined;
    // What is being worked at waits for the next time.
    const ids = [...pending].filter((id) => !own.isBusy(id));
    ids.forEach((id) => pending.delete(id));
    const foreign = ids.filter((id) => !own.isOwn(id));
    foreign.forEach((id) => own.forget(id));
    own.forgetOld();
    if (isAnything) onChange(undefined);
    else if (foreign.length > 0) onChange(foreign);
    isAnything = false;
    if (pending.size > 0) later();
  };
  const later = (): void => {
    timer ??= setTimeout(flush, QUIET_MS).unref();
  };
  const onEvent = (_event: string, name: string | null): void => {
    // No id begins so: it is a temporary, or a part of a revert.
    if (name?.startsWith(".") === true) return;
    // The folder's own name: it was moved or removed.
    if (name === null || name === basename(folder)) isAnything = true;
    else pending.add(name.endsWith(".json") ? name.slice(0, -".json".length) : name);
    later();
  };
  try {
    const watcher = watch(folder, { persistent: false }, onEvent);
    watcher.on("error", (error) => log.warn({ error, folder }, "watch failed"));
    own.isWatched = true;
    return () => {
      own.isWatched = false;
      clearTimeout(timer);
      watcher.close();
    };
  } catch (error) {
    log.warn({ error, folder }, "changes made by hand are seen only after a refresh");
    return () => {};
  }
}
