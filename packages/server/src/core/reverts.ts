/**
 * A volume goes back to one of its snapshots: its data are the snapshot's then, and all else of it stays, its id,
 * name, fields and size. Every snapshot stays too, later ones included, so that a revert can itself be reverted
 * where a snapshot was made before it.
 */
import { StorageError, notFound, roundUp } from "@libstorage/model";
import { heldByOther } from "./access.js";
import type { OpContext, SnapshotRecord, StorageDriver, VolumeRecord } from "./driver.js";
import type { Inventory } from "./inventory.js";
import type { Work } from "./operations.js";
import { usable } from "./refusals.js";

/** As large as it is, and as the snapshot needs. Without a limit it stays without. */
function revertedFrom(volume: VolumeRecord, { sizeBytes }: SnapshotRecord): VolumeRecord {
  if (volume.sizeBytes === 0 || volume.sizeBytes >= sizeBytes) return volume;
  return { ...volume, sizeBytes };
}

export class Reverts {
  readonly #driverName: string;
  readonly #driver: StorageDriver;
  readonly #inventory: Inventory;

  constructor(driverName: string, driver: StorageDriver, inventory: Inventory) {
    this.#driverName = driverName;
    this.#driver = driver;
    this.#inventory = inventory;
  }

  /**
   * @param hold runs what needs the snapshot while nobody else changes it
   * @throws {StorageError} `unimplemented`; `failed-precondition`, naming the holder, while someone has the volume;
   * `invalid-argument` for a snapshot of another volume
   */
  revert(
    volume: VolumeRecord,
    snapshot: SnapshotRecord,
    hold: <R>(act: () => Promise<R>) => Promise<R>,
  ): Work<VolumeRecord> {
    const { reverts } = this.#driver;
    if (reverts === undefined)
      throw new StorageError(
        "unimplemented",
        `not supported: the ${this.#driverName} driver cannot revert volumes; create a volume from the snapshot ${snapshot.id} instead`,
        { driver: this.#driverName, volumeID: volume.id, snapshotID: snapshot.id },
      );
    if (snapshot.volumeID !== volume.id)
      throw new StorageError(
        "invalid-argument",
        `cannot revert volume ${volume.id} to snapshot ${snapshot.id}, which is one of volume ${snapshot.volumeID}; create a volume from it instead`,
        { volumeID: volume.id, snapshotID: snapshot.id, snapshotOf: snapshot.volumeID },
      );
    if (usable(volume).attachments.length > 0)
      throw heldByOther(volume, "revert", "detach it first");
    const { id } = volume;
    const { id: from } = usable(snapshot);
    const wanted = revertedFrom(volume, {
      ...snapshot,
      sizeBytes: roundUp(snapshot.sizeBytes, this.#driver.allocationUnitBytes),
    });
    return {
      subject: { volumeID: id, sizeBytes: wanted.sizeBytes, from },
      run: (context) =>
        hold(() => {
          // It may have been removed while this waited for its lock.
          if (this.#inventory.snapshots.get(from) === undefined) throw notFound("snapshot", from);
          return reverts.volumeRevert(wanted, snapshot, context);
        }),
      apply: (reverted) => this.#inventory.putVolume(reverted),
      takeBack: async (context) => {
        await reverts.volumeRevertSettle(id, context);
        await this.#inventory.rereadVolume(id, context);
      },
    };
  }
}

/**
 * Reverts once more what was cut short. Where that cannot be, because the snapshot is gone or there is no room, the
 * volume is whole all the same.
 * @returns undefined when it may be as it was before
 */
export async function revertAgain(
  driver: StorageDriver,
  { volumeID, from }: { readonly volumeID: string; readonly from: string },
  context: OpContext,
): Promise<VolumeRecord | undefined> {
  await driver.reverts?.volumeRevertSettle(volumeID, context);
  const volume = await driver.volumeInspect(volumeID, context);
  const snapshot = await driver.snapshotInspect(from, context);
  if (volume === undefined || volume.broken !== undefined) return undefined;
  if (snapshot === undefined || snapshot.broken !== undefined) return undefined;
  // Someone got in since: then it was finished, and the journal has lost its end.
  if (volume.attachments.length > 0) return volume;
  try {
    return await driver.reverts?.volumeRevert(revertedFrom(volume, snapshot), snapshot, context);
  } catch (error) {
    context.log.warn({ error, volumeID, snapshotID: from }, "not reverted once more");
    await driver.reverts?.volumeRevertSettle(volumeID, context);
    return undefined;
  }
}
