/**
 * The limits of a service's volumes. A volume that was made while no quota was on has none, and all lose theirs when
 * quota is switched off and on again: those are found by one report, and set beside everything else.
 */
import { lstatSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import { Locks } from "../../core/locks.js";
import type { IdleVolumes } from "../folders/backing.js";
import { limitSubvolume, limitsBeside } from "./btrfs.js";
import { placesBelow } from "./places.js";

/** How many limits are set at a time. */
const AT_ONCE = 4;

/** The last round finds nothing wrong; each but the first is also for volumes that were being changed before. */
const ROUNDS = 5;

/** How long such a change gets to end. */
const PAUSE_MS = 500;

/** How long a list waits for them; more of them come beside it. */
const WAIT_MS = 1_000;

export class Limits {
  readonly #folder: string;
  readonly #context: OpContext;
  readonly #stopping = new AbortController();
  /** A volume's size may change while its old one is set. */
  readonly #locks = new Locks();
  /** Those that were set since the volumes were last listed, by who knew their sizes better. */
  #touched: Set<string> | undefined = new Set();
  #idle: () => Promise<IdleVolumes> = async () => ({ volumes: [], areAll: true });
  #settling: Promise<void> | undefined;
  #failure: string | undefined;

  /** @param folder of the volumes @param context lives as long as this */
  constructor(folder: string, context: OpContext) {
    this.#folder = folder;
    this.#context = { ...context, signal: this.#stopping.signal };
  }

  useVolumes(idle: () => Promise<IdleVolumes>): void {
    this.#idle = idle;
  }

  /** @param sizeBytes 0 takes the limit away */
  async set(path: string, sizeBytes: number, context: OpContext): Promise<void> {
    this.#touched?.add(path);
    await this.#locks.run(path, () => limitSubvolume(context, path, sizeBytes));
  }

  /** Whether the last try to set all of them failed. */
  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /**
   * Sets those that are missing or wrong, beside everything else. Under way already: changes nothing.
   * @param listed what the first list has found
   */
  settle(listed?: readonly VolumeRecord[]): void {
    if (this.#stopping.signal.aborted) return;
    this.#settling ??= this.#settleAll(listed)
      .then(
        () => (this.#failure = undefined),
        (error: unknown) => this.#note(error),
      )
      .then(() => {
        this.#settling = undefined;
        this.forget();
      });
  }

  /** No list counts any more. */
  forget(): void {
    this.#touched = undefined;
  }

  /** The usual few are set when this answers. */
  async settled(): Promise<void> {
    if (this.#settling === undefined) return;
    const waiting = new AbortController();
    const { signal } = waiting;
    const late = sleep(WAIT_MS, undefined, { signal }).catch(() => {});
    await Promise.race([this.#settling, late]);
    waiting.abort();
  }

  #note(error: unknown): void {
    if (this.#stopping.signal.aborted) return;
    const message = error instanceof Error ? error.message : String(error);
    if (message !== this.#failure)
      this.#context.log.error(
        { error, folder: this.#folder },
        "limits of volumes could not be set, so that their sizes are not enforced; it is tried again",
      );
    this.#failure = message;
  }

  async #settleAll(listed: readonly VolumeRecord[] | undefined): Promise<void> {
    const { log, signal } = this.#context;
    const folder = this.#folder;
    for (let round = 1; round <= ROUNDS; round += 1) {
      const isListed = round === 1 && listed !== undefined;
      if (!isListed) this.#touched = new Set();
      const { volumes, areAll } = isListed ? { volumes: listed, areAll: true } : await this.#idle();
      const wrong = await this.#wrong(volumes, this.#context);
      if (wrong.length === 0 && areAll) return;
      if (wrong.length === 0) await sleep(PAUSE_MS, undefined, { signal });
      else {
        log.warn(
          { folder, volumes: wrong.length },
          "volumes are without their limit: it is being set, and until then their sizes are not enforced",
        );
        await this.#setAll(wrong);
        log.info({ folder, volumes: wrong.length }, "volumes have their limits");
      }
    }
  }

  async #setAll(wrong: readonly Limited[]): Promise<void> {
    const waiting = [...wrong];
    const errors: unknown[] = [];
    const work = async (): Promise<void> => {
      for (let next = waiting.pop(); next !== undefined; next = waiting.pop())
        await this.#setOne(next).catch((error: unknown) => errors.push(error));
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    // One that cannot be set keeps no other from its limit.
    if (errors.length > 0) throw errors[0];
  }

  async #setOne({ path, sizeBytes }: Limited): Promise<void> {
    await this.#locks.run(path, async () => {
      if (this.#touched?.has(path) === true) return;
      try {
        await limitSubvolume(this.#context, path, sizeBytes);
      } catch (error) {
        // Removed meanwhile.
        if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) throw error;
      }
    });
  }

  /** Volumes that have a size, and another limit or none. */
  async #wrong(volumes: readonly VolumeRecord[], context: OpContext): Promise<readonly Limited[]> {
    const limited = volumes.flatMap(({ source, sizeBytes, broken }) =>
      broken === undefined && source.kind === "directory" && sizeBytes > 0
        ? [{ path: source.path, sizeBytes }]
        : [],
    );
    if (limited.length === 0) return [];
    const placeOf = placesBelow(this.#folder);
    const limits = new Map<string, number | undefined>();
    for (const { path, limitBytes } of await limitsBeside(context, this.#folder))
      limits.set(placeOf(path) ?? "", limitBytes);
    return limited.filter(({ path, sizeBytes }) => limits.get(path) !== sizeBytes);
  }

  /** What `--check` says of them; empty when each volume has its own. */
  async detail(context: OpContext): Promise<string> {
    try {
      const { volumes } = await this.#idle();
      const { length } = await this.#wrong(volumes, context);
      if (length === 0) return "";
      const who =
        length === 1
          ? "1 volume is without its limit"
          : `${length} volumes are without their limits`;
      return this.#failure === undefined
        ? `; ${who}, which the server sets beside its work`
        : `; ${who}, which could not be set: ${this.#failure}`;
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      return `; whether each volume has its limit cannot be told: ${why}`;
    }
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    await this.#settling;
  }
}

interface Limited {
  readonly path: string;
  readonly sizeBytes: number;
}

/** Of the folder that holds the volumes. */
export function limitsOf(root: string, context: OpContext): Limits {
  return new Limits(join(root, "vol"), context);
}
