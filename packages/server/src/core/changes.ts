/**
 * Work on what is there: who holds it, its size, its end. After a failure the backend's word counts, so
 * taking back begins with a look.
 */
import { StorageError, roundUp } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import { decideAttach, heldBy, heldByOther, isShareable } from "./access.js";
import type {
  AttachmentRecord,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "./driver.js";
import { isDoorHolder } from "./exporter.js";
import type { Holds } from "./holds.js";
import type { Inventory } from "./inventory.js";
import type { Prepared, Subject, Work } from "./operations.js";
import { bounded, unable, usable } from "./refusals.js";

export interface Attached {
  readonly volume: VolumeRecord;
  readonly attachment: AttachmentRecord;
  /** What the client waits for among its local devices; empty when there is nothing to wait for. */
  readonly attachToken: string;
}

export interface AttachRequest {
  readonly to: InstanceID;
  /** What the client would call it; empty when it leaves that to the driver. */
  readonly deviceName: string;
  readonly force: boolean;
  /** What the holder says of its hold; kept with it. */
  readonly fields?: Readonly<Record<string, string>>;
}

export class Changes {
  readonly #driver: StorageDriver;
  readonly #holds: Holds;
  readonly #inventory: Inventory;

  constructor(driver: StorageDriver, holds: Holds, inventory: Inventory) {
    this.#driver = driver;
    this.#holds = holds;
    this.#inventory = inventory;
  }

  async attach(
    volume: VolumeRecord,
    { to, deviceName, force, fields }: AttachRequest,
    shareableByService: boolean,
    looking: OpContext,
  ): Promise<Prepared<Attached>> {
    refuseDoorName(to);
    const shareable = isShareable(usable(volume), shareableByService);
    const grant = decideAttach(volume, to, force, shareable);
    if (grant.kind === "held") {
      await this.#holds.readmit(volume, looking);
      return { settled: this.#attached(volume, grant.attachment) };
    }
    const epoch = volume.epoch + 1;
    const stay = volume.attachments.filter((one) => !grant.cut.includes(one));
    const attachment = {
      instanceID: to,
      deviceName,
      status: "attached",
      epoch,
      since: Date.now(),
      ...(fields !== undefined && { fields: bounded(fields) }),
    };
    return {
      work: {
        subject: { volumeID: volume.id, holder: to, force },
        run: async (context) => {
          // Nobody is cut off for a holder who could not be let in.
          const before = { ...volume, epoch, attachments: stay };
          const planned = await this.#holds.plan(before, attachment, context);
          const free = await this.#holds.cutAll(volume, grant.cut, true, context);
          const attached = await this.#holds.admit({ ...free, epoch }, planned, context);
          return this.#attached(attached, heldBy(attached, to) ?? attachment);
        },
        apply: (attached) => this.#inventory.putVolume(attached.volume),
        takeBack: async (context) => {
          const now = await this.#inventory.rereadVolume(volume.id, context);
          await this.#holds.readmitIfPossible(now, context);
          if (now === undefined || heldBy(now, to) === undefined) return;
          this.#inventory.putVolume(await this.#holds.cut(now, to, false, context));
        },
      },
    };
  }

  #attached(volume: VolumeRecord, attachment: AttachmentRecord): Attached {
    return { volume, attachment, attachToken: this.#holds.attachToken(attachment) };
  }

  /**
   * Takes an instance's hold away. One that holds nothing gets the volume as it is; with `force` it takes
   * every other holder's away, for a volume that is stuck on a dead host.
   */
  detach(volume: VolumeRecord, from: InstanceID, force: boolean): Prepared<VolumeRecord> {
    refuseDoorName(from);
    const own = heldBy(usable(volume), from);
    const cut = own !== undefined ? [own] : force ? volume.attachments : [];
    if (cut.length === 0) return { settled: volume };
    return {
      work: this.#change(volume, { holder: from, force }, (context) =>
        this.#holds.cutAll(volume, cut, force, context),
      ),
    };
  }

  expand(volume: VolumeRecord, sizeBytes: number): Prepared<VolumeRecord> {
    const { id } = usable(volume);
    if (this.#driver.volumeExpand === undefined) throw unable("expand volumes");
    const size = roundUp(sizeBytes, this.#driver.allocationUnitBytes);
    if (size === volume.sizeBytes) return { settled: volume };
    if (volume.sizeBytes === 0)
      throw new StorageError(
        "failed-precondition",
        `volume ${id} has no size limit, so it cannot be expanded`,
        { volumeID: id },
      );
    if (size < volume.sizeBytes)
      throw new StorageError(
        "invalid-argument",
        `volume ${id} has ${volume.sizeBytes} bytes and cannot shrink to ${size}; copy its data to a smaller volume instead`,
        { volumeID: id, sizeBytes: volume.sizeBytes },
      );
    return {
      work: this.#change(volume, { sizeBytes: size }, (context) =>
        this.#holds.expand(volume, size, context),
      ),
    };
  }

  /** Work that ends with another record of the same volume. */
  #change(
    volume: VolumeRecord,
    subject: Subject,
    run: (context: OpContext) => Promise<VolumeRecord>,
  ): Work<VolumeRecord> {
    return {
      subject: { volumeID: volume.id, ...subject },
      run,
      apply: (changed) => this.#inventory.putVolume(changed),
      takeBack: async (context) => {
        const now = await this.#inventory.rereadVolume(volume.id, context);
        await this.#holds.readmitIfPossible(now, context);
      },
    };
  }

  remove(volume: VolumeRecord, force: boolean): Work<null> {
    if (!force) {
      usable(volume);
      if (volume.attachments.length > 0)
        throw heldByOther(volume, "remove", "detach it first, or remove it with force");
    }
    const { id, attachments } = volume;
    const driver = this.#driver;
    // A holder may have it mounted until it is cut off.
    const look = attachments.length > 0 ? undefined : driver.volumeCheckUnused?.bind(driver, id);
    return {
      subject: { volumeID: id, force },
      ...(look !== undefined && { look }),
      run: async (context) => {
        // The record of a broken volume cannot be changed; what still uses it is for the driver to see.
        if (volume.broken === undefined)
          await this.#holds.cutAll(volume, attachments, true, context);
        await driver.volumeRemove(id, context, look !== undefined);
        return null;
      },
      apply: () => this.#inventory.dropVolume(id),
      takeBack: async (context) => {
        const left = await this.#inventory.rereadVolume(id, context);
        if (!isBeyondReturn(volume, left)) return this.#holds.readmitIfPossible(left, context);
        await driver.volumeRemove(id, context);
        this.#inventory.dropVolume(id);
      },
    };
  }

  snapshotRemove(snapshot: SnapshotRecord): Work<null> {
    const { id } = snapshot;
    const { snapshots } = this.#driver;
    if (snapshots === undefined) throw unable("remove snapshots");
    return {
      subject: { snapshotID: id },
      run: async (context) => {
        await snapshots.snapshotRemove(id, context);
        return null;
      },
      apply: () => this.#inventory.dropSnapshot(id),
      takeBack: async (context) => {
        const left = await this.#inventory.rereadSnapshot(id, context);
        if (!isBeyondReturn(snapshot, left)) return;
        await snapshots.snapshotRemove(id, context);
        this.#inventory.dropSnapshot(id);
      },
    };
  }
}

/** A host of such a name would hold what is exported. */
function refuseDoorName(holder: InstanceID): void {
  if (!isDoorHolder(holder)) return;
  throw new StorageError(
    "invalid-argument",
    `an instance cannot be named ${holder.id}: the name stands for an export; remove that with exportRemove`,
    { instanceID: holder.id },
  );
}

/** Whether a removal that failed has gone so far that only its end is left. */
function isBeyondReturn(
  before: { readonly broken?: string },
  left: { readonly broken?: string } | undefined,
): boolean {
  return left === undefined || (left.broken !== undefined && before.broken === undefined);
}
