/** Work that makes something new. What is left of it after a failure is removed under the id it was given. */
import { StorageError, notFound, roundUp } from "@libstorage/model";
import type {
  ContentIn,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "./driver.js";
import type { Inventory } from "./inventory.js";
import type { Work } from "./operations.js";
import { bounded, unable, usable } from "./refusals.js";

/** What a caller may say about a new volume; everything else comes from the driver or the source. */
export interface NewVolume {
  readonly name: string;
  readonly sizeBytes?: number;
  readonly type?: string;
  readonly availabilityZone?: string;
  readonly iops?: number;
  readonly encrypted?: boolean;
  readonly fields: Readonly<Record<string, string>>;
}

export interface NewObject {
  readonly name: string;
  readonly fields: Readonly<Record<string, string>>;
}

/** The service that a volume is brought from. */
export interface OtherService {
  readonly name: string;
  readonly driverName: string;
  readonly driver: StorageDriver;
}

export class Creations {
  readonly #driverName: string;
  readonly #driver: StorageDriver;
  readonly #inventory: Inventory;

  constructor(driverName: string, driver: StorageDriver, inventory: Inventory) {
    this.#driverName = driverName;
    this.#driver = driver;
    this.#inventory = inventory;
  }

  volume(request: NewVolume): Work<VolumeRecord> {
    const volume = this.#draft(request);
    return this.#volumeWork(volume, (context) => this.#driver.volumeCreate(volume, context));
  }

  /** The copy is as its source is, without its holders. */
  volumeCopy(source: VolumeRecord, request: NewObject): Work<VolumeRecord> {
    usable(source);
    const copy = this.#driver.volumeCopy?.bind(this.#driver);
    if (copy === undefined) throw unable("copy volumes");
    const { sizeBytes, type, availabilityZone, iops } = source;
    const fields = { ...source.fields, ...request.fields };
    const draft = this.#draft({ name: request.name, type, availabilityZone, iops, fields });
    const volume = { ...draft, sizeBytes };
    return this.#volumeWork(volume, (context) => copy(source, volume, context));
  }

  /** Brings a volume of another service here. The copy is as its source is, without its holders. */
  volumeCopyFrom(from: OtherService, source: VolumeRecord, request: NewObject): Work<VolumeRecord> {
    usable(source);
    const copy = this.#driver.volumeCopyFrom?.bind(this.#driver);
    if (copy === undefined || from.driverName !== this.#driverName)
      throw new StorageError(
        "unimplemented",
        `the ${this.#driverName} driver of the target takes no volumes of service ${from.name}, whose driver is ${from.driverName}; create a volume there and copy the files`,
        { service: from.name, volumeID: source.id },
      );
    const { sizeBytes, type, availabilityZone, iops } = source;
    const fields = { ...source.fields, ...request.fields };
    const volume = this.#draft({
      name: request.name,
      sizeBytes,
      type,
      availabilityZone,
      iops,
      fields,
    });
    return this.#volumeWork(volume, async (context) => {
      // The driver that copies cannot look whether the source still stands as the inventory has it.
      const now = await from.driver.volumeInspect(source.id, context);
      if (now === undefined) throw notFound("volume", source.id, { service: from.name });
      return copy(usable(now), volume, context);
    });
  }

  /** @param carry gives the content while it can be read, and takes note of what becomes of it */
  volumeFromContent(
    request: NewVolume,
    carry: (
      take: (content: ContentIn) => Promise<VolumeRecord>,
      volume: VolumeRecord,
      context: OpContext,
    ) => Promise<VolumeRecord>,
  ): Work<VolumeRecord> {
    const { content } = this.#driver;
    if (content === undefined) throw unable("take the content of a volume as a stream");
    const volume = this.#draft(request);
    return this.#volumeWork(volume, (context) =>
      carry((bytes) => content.volumeCreateFrom(volume, bytes, context), volume, context),
    );
  }

  volumeFromSnapshot(source: SnapshotRecord, request: NewVolume): Work<VolumeRecord> {
    usable(source);
    const { snapshots } = this.#driver;
    if (snapshots === undefined) throw unable("create volumes from snapshots");
    const volume = this.#draft({
      ...source.origin,
      ...request,
      sizeBytes: request.sizeBytes ?? source.sizeBytes,
      fields: { ...source.fields, ...request.fields },
    });
    if (volume.sizeBytes !== 0 && volume.sizeBytes < source.sizeBytes)
      throw new StorageError(
        "invalid-argument",
        `a volume from snapshot ${source.id} needs at least its ${source.sizeBytes} bytes, not ${volume.sizeBytes}`,
        { snapshotID: source.id, sizeBytes: source.sizeBytes },
      );
    return this.#volumeWork(volume, (context) =>
      snapshots.volumeCreateFromSnapshot(source, volume, context),
    );
  }

  snapshot(source: VolumeRecord, request: NewObject): Work<SnapshotRecord> {
    usable(source);
    const { snapshots } = this.#driver;
    if (snapshots === undefined) throw unable("make snapshots");
    const { id, type, availabilityZone, iops, sizeBytes } = source;
    const snapshot = this.#snapshotDraft(id, request.name, {
      sizeBytes,
      origin: { type, availabilityZone, iops },
      fields: { ...source.fields, ...request.fields },
    });
    return this.#snapshotWork(snapshot, (context) =>
      snapshots.snapshotCreate(source, snapshot, context),
    );
  }

  snapshotCopy(source: SnapshotRecord, request: NewObject): Work<SnapshotRecord> {
    usable(source);
    const { snapshots } = this.#driver;
    const copy = snapshots?.snapshotCopy?.bind(snapshots);
    if (copy === undefined) throw unable("copy snapshots");
    const { sizeBytes, origin, volumeID } = source;
    const snapshot = this.#snapshotDraft(volumeID, request.name, {
      sizeBytes,
      ...(origin !== undefined && { origin }),
      fields: { ...source.fields, ...request.fields },
    });
    return this.#snapshotWork(snapshot, (context) => copy(source, snapshot, context));
  }

  #draft(request: NewVolume): VolumeRecord {
    return {
      id: this.#inventory.nextVolumeID(),
      name: request.name,
      sizeBytes: this.#sizeFor(request.sizeBytes),
      type: request.type ?? "",
      availabilityZone: request.availabilityZone ?? "",
      iops: request.iops ?? 0,
      encrypted: request.encrypted ?? false,
      fields: bounded(request.fields),
      attachments: [],
      epoch: 0,
      source: { kind: "none" },
    };
  }

  /** 0 is "no limit" where a volume can be without one, and the default size where it cannot. */
  #sizeFor(asked: number | undefined): number {
    const { defaultSizeBytes, allocationUnitBytes, type } = this.#driver;
    const isDefault = asked === undefined || (asked === 0 && type === "block");
    return roundUp(isDefault ? defaultSizeBytes : asked, allocationUnitBytes);
  }

  #snapshotDraft(
    volumeID: string,
    name: string,
    { fields, ...rest }: Pick<SnapshotRecord, "sizeBytes" | "origin" | "fields">,
  ): SnapshotRecord {
    return {
      id: this.#inventory.nextSnapshotID(volumeID),
      name,
      volumeID,
      encrypted: false,
      startTime: Date.now(),
      status: "online",
      source: { kind: "none" },
      fields: bounded(fields),
      ...rest,
    };
  }

  #volumeWork(
    { id, sizeBytes }: VolumeRecord,
    run: (context: OpContext) => Promise<VolumeRecord>,
  ): Work<VolumeRecord> {
    return {
      subject: { volumeID: id, sizeBytes },
      counters: this.#inventory.counter("volume"),
      run,
      apply: (made) => this.#inventory.putVolume(made),
      takeBack: async (context) => {
        await this.#driver.volumeRemove(id, context);
        this.#inventory.dropVolume(id);
      },
    };
  }

  #snapshotWork(
    { id, volumeID }: SnapshotRecord,
    run: (context: OpContext) => Promise<SnapshotRecord>,
  ): Work<SnapshotRecord> {
    return {
      subject: { snapshotID: id, volumeID },
      counters: this.#inventory.counter("snapshot"),
      run,
      apply: (made) => this.#inventory.putSnapshot(made),
      takeBack: async (context) => {
        await this.#driver.snapshots?.snapshotRemove(id, context);
        this.#inventory.dropSnapshot(id);
      },
    };
  }
}
