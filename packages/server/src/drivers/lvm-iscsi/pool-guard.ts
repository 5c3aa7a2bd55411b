/**
 * Watches the fill of a thin pool: warns, extends, refuses what is new, and suspends the service's volumes
 * before the pool is full, when the kernel would lose what is written. Data and metadata are looked at by
 * themselves.
 */
import { readdirSync } from "node:fs";
import { formatSize, StorageError } from "@libstorage/model";
import type { DriverContext } from "../../core/driver.js";
import type { ThinPoolConfig } from "./config.js";
import { dmNameOf, isSuspended, kernelNameOf } from "./devices.js";
import { resume, suspend } from "./dmsetup.js";
import type { Known } from "./known.js";
import type { Lvm } from "./lvm.js";
import type { Names } from "./names.js";
import { checkPool, poolIn } from "./opening.js";
import type { PoolRow } from "./opening.js";
import type { LvRow } from "./reports.js";
import { REMOVED } from "./tags.js";
import { grown, limitsOf, mostBytesIn, partsAt, waitMs, wordsFor } from "./pool-limits.js";
import type { Limits, Look, Part } from "./pool-limits.js";

/**
 * Whether a volume may fill the pool. Those beside it have their space, and one that is wiped gives its space back,
 * which must not wait for room. One that nobody knows may be in the pool.
 */
export function fills(row: LvRow | undefined): boolean {
  return isInPool(row) && row?.tags.includes(REMOVED) !== true;
}

function isInPool(row: LvRow | undefined): boolean {
  return row?.pool !== "";
}

interface ActiveVolume {
  readonly name: string;
  /** As device-mapper calls it. */
  readonly dmName: string;
}

export interface PoolParts {
  readonly lvm: Lvm;
  readonly names: Names;
  readonly known: Known;
  readonly config: ThinPoolConfig;
  /** As it is found at the start. */
  readonly first: PoolRow;
  readonly context: DriverContext;
}

export class PoolGuard {
  readonly #lvm: Lvm;
  readonly #names: Names;
  readonly #known: Known;
  readonly #config: ThinPoolConfig;
  readonly #limits: Readonly<Record<Part, Limits>>;
  readonly #context: DriverContext;
  readonly #stopping = new AbortController();
  #row: PoolRow;
  /** The last two looks. */
  #last: Look;
  #before: Look | undefined;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  /** The parts of the pool that the log has warned of. */
  #warned: readonly Part[] = [];
  #isSuspending = false;
  /** A server before this one may have left some so. */
  #mayBeSuspended = true;
  /** Why it was not extended, once. */
  #isStuck = false;

  constructor({ lvm, names, known, config, first, context }: PoolParts) {
    this.#lvm = lvm;
    this.#names = names;
    this.#known = known;
    this.#config = config;
    this.#limits = limitsOf(config);
    this.#row = first;
    this.#last = lookAt(first);
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
    const full = partsAt(state, this.#limits, "refuseAt");
    if (full.length === 0) return;
    const option = full.includes("data") ? "lvextend -L" : "lvextend --poolmetadatasize";
    throw new StorageError(
      "resource-exhausted",
      `the thin pool ${path} is too full for something new: ${wordsFor(full, state, this.#limits)}; extend it (${option}), or remove something`,
      { ...data, full },
    );
  }

  /** What could never be filled is most likely a slip. */
  #checkSize(wantedBytes: number): void {
    const { name, sizeBytes } = this.#row;
    const most = this.#config.allowLarger ? undefined : mostBytesIn(sizeBytes, this.#limits.data);
    if (most === undefined || wantedBytes <= most) return;
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

  #delay(): number {
    const wholeMs = this.#config.checkSeconds * 1000;
    return waitMs(this.#last, this.#before, this.#limits, wholeMs);
  }

  async #look(): Promise<void> {
    try {
      // Also of a pool that has failed meanwhile: nothing new may come into it.
      const row = await this.#now();
      checkPool(row, this.#lvm);
      await this.#act(row);
    } catch (error) {
      this.#failed(error);
    }
  }

  async #now(): Promise<PoolRow> {
    const { name } = this.#row;
    const found = await this.#lvm.lv(name, this.#context);
    const row = poolIn(found === undefined ? [] : [found], this.#lvm, name);
    this.#take(row);
    return row;
  }

  #take(row: PoolRow): void {
    // While it is inactive it does not tell its fill.
    const isKnown = this.#last.state.dataPercent !== undefined;
    this.#before = isKnown ? this.#last : undefined;
    this.#last = lookAt(row);
    this.#row = row;
  }

  #failed(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    const pool = this.#lvm.path(this.#row.name);
    this.#context.log.error({ error, pool }, "the thin pool cannot be watched");
  }

  async #act(row: PoolRow): Promise<void> {
    // First of all nothing more is written; an extension may take a while.
    if (this.#isAt(row, "suspendAt")) await this.#suspend();
    this.#warn(row);
    const thin = partsAt(row.state, this.#limits, "extendAt");
    const growing = thin.filter((part) => this.#limits[part].extendBy !== undefined);
    if (growing.length > 0) await this.#extend(row, growing);
    if (!this.#isAt(this.#row, "suspendAt")) await this.#resume();
  }

  #isAt({ state }: PoolRow, limit: "suspendAt"): boolean {
    return partsAt(state, this.#limits, limit).length > 0;
  }

  #warn({ name, state }: PoolRow): void {
    const { dataPercent, metadataPercent } = state;
    const full = partsAt(state, this.#limits, "warnAt");
    if (full.some((part) => !this.#warned.includes(part)))
      this.#context.log.warn(
        { pool: this.#lvm.path(name), dataPercent, metadataPercent, full },
        "the thin pool is filling: extend it, or remove something",
      );
    this.#warned = full;
  }

  async #extend(row: PoolRow, parts: readonly Part[]): Promise<void> {
    const { name, sizeBytes, state } = row;
    const { metadataBytes } = state;
    const { extentBytes } = this.#lvm.about;
    try {
      const data = grown(sizeBytes, this.#limits.data, extentBytes);
      if (parts.includes("data") && data > sizeBytes)
        await this.#lvm.extend(name, data, this.#context);
      const metadata = grown(metadataBytes, this.#limits.metadata, extentBytes);
      if (parts.includes("metadata") && metadata > metadataBytes)
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
    if (now.sizeBytes > sizeBytes || now.state.metadataBytes > metadataBytes)
      this.#context.log.info(
        { pool: this.#lvm.path(name), size: formatSize(now.sizeBytes) },
        "the thin pool was extended",
      );
  }

  /** The service's active volumes that may be in the pool, suspended or running. */
  #active(wanted: "suspended" | "running"): ActiveVolume[] {
    const { group } = this.#lvm.about;
    let entries: string[] = [];
    try {
      entries = readdirSync(`/dev/${group}`);
    } catch {
      // The group has no active volume.
    }
    return entries
      .filter((name) => this.#names.kindOf(name) !== undefined)
      .filter((name) => isInPool(this.#known.get(name)))
      .flatMap((name) => {
        const kernelName = kernelNameOf(this.#lvm.device(name));
        if (kernelName === undefined) return [];
        const isWanted = isSuspended(kernelName) === (wanted === "suspended");
        return isWanted ? [{ name, dmName: dmNameOf(kernelName) }] : [];
      });
  }

  #fills({ name }: ActiveVolume): boolean {
    return fills(this.#known.get(name));
  }

  async #suspend(): Promise<void> {
    const running = this.#active("running").filter((one) => this.#fills(one));
    if (!this.#isSuspending || running.length > 0) {
      const { name, state } = this.#row;
      const { dataPercent, metadataPercent } = state;
      const volumes = running.map(({ dmName }) => dmName);
      this.#context.log.error(
        { pool: this.#lvm.path(name), dataPercent, metadataPercent, volumes },
        "the thin pool is as good as full: its volumes are suspended, and go on once it has room (lvextend)",
      );
    }
    this.#isSuspending = true;
    this.#mayBeSuspended = true;
    // One that is removed meanwhile must not keep the others running.
    await eachOf(running, async (one) => {
      if (this.#fills(one)) await suspend(one.dmName, this.#context);
    });
    const wiped = this.#active("suspended").filter((one) => !this.#fills(one));
    await eachOf(wiped, ({ dmName }) => resume(dmName, this.#context));
  }

  async #resume(): Promise<void> {
    // LVM suspends volumes for a moment, too, and must find them so.
    if (!this.#mayBeSuspended) return;
    const suspended = this.#active("suspended");
    await eachOf(suspended, ({ dmName }) => resume(dmName, this.#context));
    if (this.#isSuspending) {
      const volumes = suspended.map(({ dmName }) => dmName);
      this.#context.log.info({ volumes }, "the thin pool has room again");
    }
    this.#isSuspending = false;
    this.#mayBeSuspended = false;
  }
}

function lookAt({ sizeBytes, state }: PoolRow): Look {
  return { atMs: performance.now(), sizeBytes, state };
}

/** One after another. @throws what the first one that failed has thrown, after all */
async function eachOf<T>(all: readonly T[], act: (one: T) => Promise<void>): Promise<void> {
  const errors: unknown[] = [];
  for (const one of all) await act(one).catch((error: unknown) => errors.push(error));
  if (errors.length > 0) throw errors[0];
}
