/**
 * Watches the fill of a thin pool: warns, extends, refuses what is new, and suspends the service's volumes
 * before the pool is full, when the kernel would lose what is written. Data and metadata are looked at by
 * themselves; metadata that is full is worse, since the pool then has to be repaired.
 */
import { readdirSync } from "node:fs";
import { formatSize, parseSize, StorageError } from "@libstorage/model";
import type { DriverContext } from "../../core/driver.js";
import { stepOf } from "./config.js";
import type { ThinPoolConfig } from "./config.js";
import { dmNameOf, isSuspended, kernelNameOf } from "./devices.js";
import { resume, suspend } from "./dmsetup.js";
import type { Lvm } from "./lvm.js";
import type { Names } from "./names.js";
import { poolIn } from "./opening.js";
import type { PoolRow } from "./opening.js";

/** The largest metadata that device-mapper uses. @see lvmthin(7) */
const MOST_METADATA_BYTES = 16 * 1024 ** 3;
/** How soon the next look comes when the pool is as good as full. */
const SOONEST_MS = 500;

export interface PoolParts {
  readonly lvm: Lvm;
  readonly names: Names;
  readonly limits: ThinPoolConfig;
  /** As it is found at the start. */
  readonly first: PoolRow;
  readonly context: DriverContext;
}

function fillOf({ state: { dataPercent = 0, metadataPercent = 0 } }: PoolRow): number {
  return Math.max(dataPercent, metadataPercent);
}

export class PoolGuard {
  readonly #lvm: Lvm;
  readonly #names: Names;
  readonly #limits: ThinPoolConfig;
  readonly #context: DriverContext;
  readonly #stopping = new AbortController();
  #row: PoolRow;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #isWarned = false;
  #isSuspending = false;
  /** Why it was not extended, once. */
  #isStuck = false;

  constructor({ lvm, names, limits, first, context }: PoolParts) {
    this.#lvm = lvm;
    this.#names = names;
    this.#limits = limits;
    this.#row = first;
    this.#context = { ...context, signal: this.#stopping.signal };
  }

  /**
   * @param wantedBytes the size of what shall be there then
   * @throws {StorageError} `resource-exhausted` when it is larger than the pool, or the pool too full
   */
  admit(wantedBytes: number): void {
    const { name, health, state } = this.#row;
    const { dataPercent = 0, metadataPercent = 0 } = state;
    const path = this.#lvm.path(name);
    const data = { pool: path, dataPercent, metadataPercent };
    if (health !== "")
      throw new StorageError(
        "failed-precondition",
        `the thin pool ${path} is not well (${health}): extend it with lvextend, or repair it with lvconvert --repair`,
        { ...data, health },
      );
    this.#checkSize(wantedBytes);
    if (fillOf(this.#row) < this.#limits.refuseAt) return;
    throw new StorageError(
      "resource-exhausted",
      `the thin pool ${path} is too full for something new: ${dataPercent} % of its data and ${metadataPercent} % of its metadata are used, and ${this.#limits.refuseAt} % is the limit; extend it (lvextend), or remove something`,
      data,
    );
  }

  /** What could never be filled is most likely a slip. */
  #checkSize(wantedBytes: number): void {
    const { allowLarger, extendBy, extendTo } = this.#limits;
    if (allowLarger || (extendBy !== undefined && extendTo === undefined)) return;
    const { name, sizeBytes } = this.#row;
    const grown = extendBy === undefined ? 0 : (parseSize(extendTo ?? "") ?? 0);
    const most = Math.max(sizeBytes, grown);
    if (wantedBytes <= most) return;
    const path = this.#lvm.path(name);
    const { freeBytes } = this.capacity();
    throw new StorageError(
      "resource-exhausted",
      `${formatSize(wantedBytes)} are more than the thin pool ${path} can hold: it has ${formatSize(sizeBytes)}, ${formatSize(freeBytes)} of them free; ask for less, extend it (lvextend), or set pool.allowLarger`,
      { pool: path, wantedBytes, sizeBytes, freeBytes },
    );
  }

  capacity() {
    const { sizeBytes, state } = this.#row;
    const { dataPercent = 0 } = state;
    const freeBytes = Math.floor(sizeBytes * (1 - dataPercent / 100));
    return { freeBytes, totalBytes: sizeBytes };
  }

  /**
   * Acts on what was found at the start, then looks at intervals. An inactive pool does not tell its fill,
   * and would be activated and put to sleep again by each change in it.
   */
  async start(): Promise<void> {
    if (this.#row.isActive) await this.#act(this.#row).catch((error) => this.#failed(error));
    else {
      await this.#lvm.activate(this.#row.name, this.#context).catch((error) => this.#failed(error));
      await this.#look();
    }
    this.#later();
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#looking;
  }

  #later(): void {
    if (this.#stopping.signal.aborted) return;
    this.#timer = setTimeout(() => {
      this.#looking = this.#look().finally(() => this.#later());
    }, this.#delay()).unref();
  }

  /** The whole interval up to `warnAt`, then the shorter the less room there is. */
  #delay(): number {
    const { warnAt, suspendAt, checkSeconds } = this.#limits;
    const whole = checkSeconds * 1000;
    const room = Math.max(0, suspendAt - fillOf(this.#row));
    const share = warnAt >= suspendAt ? 1 : Math.min(1, room / (suspendAt - warnAt));
    return Math.max(Math.min(SOONEST_MS, whole), whole * share);
  }

  async #look(): Promise<void> {
    try {
      this.#row = await this.#now();
      await this.#act(this.#row);
    } catch (error) {
      this.#failed(error);
    }
  }

  async #now(): Promise<PoolRow> {
    const { name } = this.#row;
    const row = await this.#lvm.lv(name, this.#context);
    return poolIn(row === undefined ? [] : [row], this.#lvm, name);
  }

  #failed(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    const pool = this.#lvm.path(this.#row.name);
    this.#context.log.error({ error, pool }, "the thin pool cannot be watched");
  }

  async #act(row: PoolRow): Promise<void> {
    const { suspendAt, extendAt, extendBy } = this.#limits;
    // First of all nothing more is written; an extension may take a while.
    if (fillOf(row) >= suspendAt) await this.#suspend();
    this.#warn(row);
    if (extendBy !== undefined && fillOf(row) >= extendAt) await this.#extend(row);
    if (fillOf(this.#row) < suspendAt) await this.#resume();
  }

  #warn(row: PoolRow): void {
    const { name, state } = row;
    const { dataPercent, metadataPercent } = state;
    const isFull = fillOf(row) >= this.#limits.warnAt;
    if (isFull && !this.#isWarned)
      this.#context.log.warn(
        { pool: this.#lvm.path(name), dataPercent, metadataPercent },
        "the thin pool is filling: extend it, or remove something",
      );
    this.#isWarned = isFull;
  }

  async #extend(row: PoolRow): Promise<void> {
    const { extendAt, extendBy = "", extendTo } = this.#limits;
    const { name, sizeBytes, state } = row;
    const { metadataBytes, dataPercent = 0, metadataPercent = 0 } = state;
    const most = extendTo === undefined ? Infinity : (parseSize(extendTo) ?? Infinity);
    const extent = this.#lvm.about.extentBytes;
    const grown = (bytes: number, limit: number): number => {
      const step = stepOf(extendBy);
      if (step === undefined) return bytes;
      const more = "bytes" in step ? step.bytes : (bytes * step.percent) / 100;
      return Math.min(limit, Math.ceil((bytes + more) / extent) * extent);
    };
    try {
      const data = grown(sizeBytes, most);
      if (dataPercent >= extendAt && data > sizeBytes)
        await this.#lvm.extend(name, data, this.#context);
      const metadata = grown(metadataBytes, MOST_METADATA_BYTES);
      if (metadataPercent >= extendAt && metadata > metadataBytes)
        await this.#lvm.extendMetadata(name, metadata, this.#context);
      this.#isStuck = false;
    } catch (error) {
      if (!this.#isStuck)
        this.#context.log.error(
          { error, pool: this.#lvm.path(name) },
          "the thin pool could not be extended: add a disk to its volume group",
        );
      this.#isStuck = true;
    }
    const now = await this.#now();
    this.#row = now;
    if (now.sizeBytes > sizeBytes || now.state.metadataBytes > metadataBytes)
      this.#context.log.info(
        { pool: this.#lvm.path(name), size: formatSize(now.sizeBytes) },
        "the thin pool was extended",
      );
  }

  /** The service's active volumes in the pool, by their device-mapper names. */
  #active(wanted: "suspended" | "running"): string[] {
    const { group } = this.#lvm.about;
    let entries: string[] = [];
    try {
      entries = readdirSync(`/dev/${group}`);
    } catch {
      // The group has no active volume.
    }
    return entries
      .filter((name) => this.#names.kindOf(name) !== undefined)
      .map((name) => kernelNameOf(this.#lvm.device(name)))
      .filter((name) => name !== undefined)
      .filter((name) => isSuspended(name) === (wanted === "suspended"))
      .map(dmNameOf);
  }

  async #suspend(): Promise<void> {
    const running = this.#active("running");
    if (!this.#isSuspending || running.length > 0) {
      const { name, state } = this.#row;
      const { dataPercent, metadataPercent } = state;
      this.#context.log.error(
        { pool: this.#lvm.path(name), dataPercent, metadataPercent, volumes: running },
        "the thin pool is as good as full: its volumes are suspended, and go on once it has room (lvextend)",
      );
    }
    this.#isSuspending = true;
    for (const name of running) await suspend(name, this.#context);
  }

  async #resume(): Promise<void> {
    const suspended = this.#active("suspended");
    for (const name of suspended) await resume(name, this.#context);
    if (this.#isSuspending)
      this.#context.log.info({ volumes: suspended }, "the thin pool has room again");
    this.#isSuspending = false;
  }
}
