/** What happens to data before its space is given back. */
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";
import { discardBlocks, zeroAll } from "./blocks.js";
import type { LvmConfig } from "./config.js";
import type { Known } from "./known.js";
import { isThin } from "./reports.js";
import type { Lvm } from "./lvm.js";
import { notZeroing } from "./opening.js";
import type { LvRow } from "./reports.js";
import { REMOVED } from "./tags.js";

export interface WipingParts {
  readonly lvm: Lvm;
  readonly known: Known;
  readonly kind: LvmConfig["wipe"];
}

export class Wiping {
  readonly #parts: WipingParts;

  constructor(parts: WipingParts) {
    this.#parts = parts;
  }

  /**
   * Wipes a volume that nobody has open. Its record goes first: what is half wiped is no volume any more.
   * @throws {StorageError} `failed-precondition` when its pool would give its data to others
   */
  async before(row: LvRow, context: OpContext): Promise<void> {
    const { lvm, known, kind } = this.#parts;
    if (kind === "none") return;
    const { name, tags } = row;
    if (kind === "zero" && isThin(row)) await this.#checkPool(row, context);
    await lvm.deactivate(name, context);
    await lvm.retag(name, tags, [REMOVED], context);
    // A pool that is nearly full suspends its volumes, but none that is wiped to make room.
    known.put({ ...row, tags: [REMOVED], isActive: true });
    await lvm.activate(name, context);
    const device = lvm.device(name);
    if (kind === "discard") await discardBlocks(device, context);
    else if (isThin(row)) await giveBack(device, context);
    else await zeroAll(device, context);
  }

  /**
   * Wipes what a snapshot with space of its own keeps of its volume. Its device shows the volume as it was, so
   * the space is made a volume first. Until then the record would be that of a snapshot, so it goes before.
   */
  async beforeSnapshot(row: LvRow, context: OpContext): Promise<void> {
    const { lvm, known, kind } = this.#parts;
    if (kind === "none") return;
    const tags = [REMOVED];
    await lvm.retag(row.name, row.tags, tags, context);
    await lvm.split(row.name, context);
    const apart = { ...row, tags, origin: "" };
    known.put(apart);
    await this.before(apart, context);
  }

  /** Whether anything is done. */
  get isWanted(): boolean {
    return this.#parts.kind !== "none";
  }

  async #checkPool({ name, pool }: LvRow, context: OpContext): Promise<void> {
    const { lvm } = this.#parts;
    const row = await lvm.lv(pool, context);
    if (row?.state?.isZeroing === true) return;
    throw new StorageError(
      "failed-precondition",
      `${name} cannot be wiped with zeros: ${notZeroing(lvm.path(pool))}`,
      { resourceID: name, pool },
    );
  }
}

/**
 * Zeros in a thin volume would take a block of the pool for each that was never written or is shared. What
 * it gives back is zeroed by the pool before anyone gets it, also where the disk below cannot discard.
 */
async function giveBack(device: string, context: OpContext): Promise<void> {
  try {
    await discardBlocks(device, context);
  } catch (error) {
    const isImpossible = error instanceof CommandError && /not supported/i.test(error.stderr);
    if (!isImpossible) throw error;
  }
}
