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

/** How it stands once it is made. */
export interface Made {
  readonly tags: readonly string[];
  /** The volume without which it cannot be; left out where there is none. */
  readonly origin?: string;
  /** The pool that it is in; left out where it is in none. */
  readonly pool?: string;
}

export interface Layout {
  create(wanted: NewObject, context: OpContext): Promise<Made>;
  /** A snapshot of a volume. */
  snapshot(source: LvRow, wanted: NewObject, context: OpContext): Promise<Made>;
  /** A volume, or a snapshot, with the data of a volume or of a snapshot. */
  copy(
    source: LvRow,
    wanted: NewObject,
    kind: "volume" | "snapshot",
    context: OpContext,
  ): Promise<Made>;
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
