/** How a service's volumes lie in the group: thin in a pool, or thick with all their space. */
import type { OpContext } from "../../core/driver.js";
import type { LvRow } from "./reports.js";

/** What is made new: a logical volume with its record. */
export interface NewObject {
  readonly id: string;
  readonly sizeBytes: number;
  /** Its record. */
  readonly tags: readonly string[];
}

export interface Layout {
  /** @returns the tags that it has then */
  create(wanted: NewObject, context: OpContext): Promise<readonly string[]>;
  /** A snapshot of a volume. */
  snapshot(source: LvRow, wanted: NewObject, context: OpContext): Promise<readonly string[]>;
  /** A volume, or a snapshot, with the data of a volume or of a snapshot. */
  copy(
    source: LvRow,
    wanted: NewObject,
    kind: "volume" | "snapshot",
    context: OpContext,
  ): Promise<readonly string[]>;
  /** Before a volume that nobody holds grows. */
  prepareToGrow(row: LvRow, context: OpContext): Promise<void>;
  /**
   * Removes a volume or snapshot, whose record is gone when this is done; a volume that snapshots need stays
   * until the last of them goes.
   */
  remove(row: LvRow, context: OpContext): Promise<void>;
  /** Removes what a copy to `id` needed, where it was cut short. */
  clear(id: string, context: OpContext): Promise<void>;
}
