/** The inventory of one service, kept true: loaded once, changed by the core's writes, corrected from the backend. */
import type {
  Change,
  Listing,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "./driver.js";
import { Shelf } from "./shelf.js";
import { lockKeyOf } from "./locks.js";
import type { Operations } from "./operations.js";
import type { Logger } from "./log.js";

type Kind = "volume" | "snapshot";

export class Inventory {
  readonly volumes = new Shelf<VolumeRecord>();
  readonly snapshots = new Shelf<SnapshotRecord>();
  readonly #service: string;
  readonly #driver: StorageDriver;
  readonly #operations: Operations;
  readonly #log: Logger;
  readonly #lastNumber = { volume: 0, snapshot: 0 };
  /** Ids that changed while a listing was under way: what the listing says of them is too old. */
  #touched: Set<string> | undefined;
  #refreshing: Promise<void> | undefined;
  #nextRefresh: Promise<void> | undefined;
  #stopWatching: (() => void) | undefined;

  constructor(service: string, driver: StorageDriver, operations: Operations, log: Logger) {
    this.#service = service;
    this.#driver = driver;
    this.#operations = operations;
    this.#log = log;
  }

  /** Whether the backend holds newer objects than the journal knows of, as after the return of an old one. */
  isJournalBehind = false;

  /** Takes the first listing, and begins to watch. */
  load({ volumes, snapshots }: Listing): void {
    this.volumes.replaceAll(volumes);
    this.snapshots.replaceAll(snapshots);
    const { ids } = this.#driver;
    this.#lastNumber.volume = this.#highest(
      "volume",
      this.volumes.all().map(({ id }) => ids.numberOfVolume(id)),
    );
    this.#lastNumber.snapshot = this.#highest(
      "snapshot",
      this.snapshots.all().map(({ id }) => ids.numberOfSnapshot(id)),
    );
    this.#stopWatching = this.#driver.watch?.((change) => this.#noticed(change));
  }

  stop(): void {
    this.#stopWatching?.();
  }

  // ---- ids

  /** What the journal remembers of the numbers given; it holds the next one, so that 0 means none. */
  counter(kind: Kind): Readonly<Record<string, number>> {
    return { [`${kind}:${this.#service}`]: this.#lastNumber[kind] + 1 };
  }

  #highest(kind: Kind, numbers: readonly (number | undefined)[]): number {
    const remembered = this.#operations.journal.counter(`${kind}:${this.#service}`) - 1;
    const least = Math.max(this.#driver.ids.first - 1, remembered);
    const highest = numbers.reduce<number>((most, n) => Math.max(most, n ?? 0), least);
    if (remembered >= 0 && highest > remembered) this.isJournalBehind = true;
    return highest;
  }

  nextVolumeID(): string {
    return this.#next("volume", (number) => this.#driver.ids.volumeID(number), this.volumes);
  }

  nextSnapshotID(volumeID: string): string {
    const { ids } = this.#driver;
    return this.#next("snapshot", (number) => ids.snapshotID(number, volumeID), this.snapshots);
  }

  #next(kind: Kind, idOf: (number: number) => string, taken: { get(id: string): unknown }): string {
    for (;;) {
      this.#lastNumber[kind] += 1;
      const id = idOf(this.#lastNumber[kind]);
      if (taken.get(id) === undefined) return id;
    }
  }

  // ---- what this server changed

  putVolume(volume: VolumeRecord): void {
    this.#touched?.add(volume.id);
    this.volumes.put(volume);
  }

  dropVolume(id: string): void {
    this.#touched?.add(id);
    this.volumes.remove(id);
  }

  putSnapshot(snapshot: SnapshotRecord): void {
    this.#touched?.add(snapshot.id);
    this.snapshots.put(snapshot);
  }

  dropSnapshot(id: string): void {
    this.#touched?.add(id);
    this.snapshots.remove(id);
  }

  // ---- what the backend says

  /**
   * Lists everything anew; what changed meanwhile through this server stays as it is. A listing that runs
   * already may have missed what the caller knows of, so the caller gets the next one, with all others
   * that came meanwhile.
   */
  refresh(signal: AbortSignal): Promise<void> {
    if (this.#refreshing === undefined) return this.#startRefresh(signal);
    this.#nextRefresh ??= this.#refreshing
      .catch(() => {})
      .then(() => {
        this.#nextRefresh = undefined;
        return this.#startRefresh(signal);
      });
    return this.#nextRefresh;
  }

  #startRefresh(signal: AbortSignal): Promise<void> {
    this.#refreshing = this.#relist(signal).finally(() => {
      this.#refreshing = undefined;
      this.#touched = undefined;
    });
    return this.#refreshing;
  }

  async #relist(signal: AbortSignal): Promise<void> {
    const touched = new Set<string>();
    this.#touched = touched;
    const listing = await this.#driver.list(this.#operations.context(this.#log, signal));
    const merge = <R extends { id: string }>(listed: readonly R[], now: readonly R[]): R[] => [
      ...listed.filter(({ id }) => !touched.has(id)),
      ...now.filter(({ id }) => touched.has(id)),
    ];
    this.volumes.replaceAll(merge(listing.volumes, this.volumes.all()));
    this.snapshots.replaceAll(merge(listing.snapshots, this.snapshots.all()));
  }

  /** Brings one volume up to the backend's state. The caller has its lock. */
  async rereadVolume(id: string, context?: OpContext): Promise<VolumeRecord | undefined> {
    const volume = await this.#driver.volumeInspect(id, context ?? this.#look());
    if (volume === undefined) this.dropVolume(id);
    else this.putVolume(volume);
    return volume;
  }

  async rereadSnapshot(id: string, context?: OpContext): Promise<SnapshotRecord | undefined> {
    const snapshot = await this.#driver.snapshotInspect(id, context ?? this.#look());
    if (snapshot === undefined) this.dropSnapshot(id);
    else this.putSnapshot(snapshot);
    return snapshot;
  }

  #look(): OpContext {
    return this.#operations.context(this.#log, AbortSignal.timeout(30_000));
  }

  /** Someone changed the backend by hand: look again, one object at a time and under its lock. */
  #noticed({ volumeIDs, snapshotIDs }: Change): void {
    const failed = (error: unknown): void => this.#log.warn({ error }, "refresh failed");
    const { locks } = this.#operations;
    if (volumeIDs === undefined && snapshotIDs === undefined)
      this.refresh(AbortSignal.timeout(60_000)).catch(failed);
    for (const id of volumeIDs ?? [])
      locks.run(lockKeyOf(this.#service, id), () => this.rereadVolume(id)).catch(failed);
    for (const id of snapshotIDs ?? [])
      locks.run(lockKeyOf(this.#service, id), () => this.rereadSnapshot(id)).catch(failed);
  }
}
