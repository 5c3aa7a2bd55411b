/**
 * One configured instance of a driver, with all rules: order, locks, undo, rounding, who may hold what.
 * Reads are answered from the inventory; writes go through `Operations`.
 */
import { StorageError, notFound, roundUp } from "@libstorage/model";
import type { DriverInfo, Instance, InstanceID } from "@libstorage/model";
import { decideAttach, heldBy, heldByOther, isShareable } from "./access.js";
import type {
  AttachmentRecord,
  Change,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "./driver.js";
import { Inventory } from "./inventory.js";
import type { Caller, Operations, Prepared, Work } from "./operations.js";
import type { Logger } from "./log.js";

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

export interface ServiceSettings {
  /** Whether several instances may hold a volume that does not say so itself. */
  readonly shareable: boolean;
  /** Whether a second volume of the same name is refused. */
  readonly uniqueNames: boolean;
}

export interface ServiceOptions {
  readonly name: string;
  readonly driverName: string;
  readonly driver: StorageDriver;
  readonly settings: ServiceSettings;
  readonly operations: Operations;
  readonly log: Logger;
}

export interface Attached {
  readonly volume: VolumeRecord;
  readonly attachment: AttachmentRecord;
  /** What the client waits for among its local devices; empty when there is nothing to wait for. */
  readonly attachToken: string;
}

export class StorageService {
  readonly name: string;
  readonly driverName: string;
  readonly driver: StorageDriver;
  readonly inventory = new Inventory();
  settings: ServiceSettings;
  readonly #operations: Operations;
  readonly #log: Logger;
  #lastVolume = 0;
  #lastSnapshot = 0;
  /** Ids that changed while a listing was under way: what the listing says of them is too old. */
  #touched: Set<string> | undefined;
  #refreshing: Promise<void> | undefined;
  #stopWatching: (() => void) | undefined;

  constructor({ name, driverName, driver, settings, operations, log }: ServiceOptions) {
    this.name = name;
    this.driverName = driverName;
    this.driver = driver;
    this.settings = settings;
    this.#operations = operations;
    this.#log = log.child({ service: name });
  }

  get info(): DriverInfo {
    return { name: this.driverName, type: this.driver.type, nextDevice: this.driver.nextDevice };
  }

  // ---- reading

  /** @throws {StorageError} `not-found` */
  volume(id: string): VolumeRecord {
    const volume = this.inventory.volumes.get(this.#normalize(id));
    if (volume === undefined) throw notFound("volume", id, { service: this.name });
    return volume;
  }

  /** The first volume of that name, without case. @throws {StorageError} `not-found` */
  volumeNamed(name: string): VolumeRecord {
    const volume = this.inventory.volumes.named(name);
    if (volume === undefined) throw notFound("volume", name, { service: this.name });
    return volume;
  }

  /** @throws {StorageError} `not-found` */
  snapshot(id: string): SnapshotRecord {
    const snapshot = this.inventory.snapshots.get(this.#normalize(id));
    if (snapshot === undefined) throw notFound("snapshot", id, { service: this.name });
    return snapshot;
  }

  snapshotNamed(name: string): SnapshotRecord {
    const snapshot = this.inventory.snapshots.named(name);
    if (snapshot === undefined) throw notFound("snapshot", name, { service: this.name });
    return snapshot;
  }

  instanceInspect(id: InstanceID): Instance {
    return this.driver.instanceInspect(id);
  }

  lockKey(id: string): string {
    return `${this.name}/${id}`;
  }

  #normalize(id: string): string {
    return this.driver.ids.normalize?.(id) ?? id;
  }

  // ---- filling the inventory

  /** Lists everything once and begins to watch. */
  async load(signal: AbortSignal): Promise<void> {
    await this.refresh(signal);
    const { ids } = this.driver;
    const { volumes, snapshots } = this.inventory;
    const highest = (numbers: (number | undefined)[], counter: string): number =>
      numbers.reduce<number>(
        (most, n) => Math.max(most, n ?? 0),
        Math.max(ids.first - 1, this.#operations.journal.counter(counter) - 1),
      );
    this.#lastVolume = highest(
      volumes.all().map(({ id }) => ids.numberOfVolume(id)),
      this.#counter("volume"),
    );
    this.#lastSnapshot = highest(
      snapshots.all().map(({ id }) => ids.numberOfSnapshot(id)),
      this.#counter("snapshot"),
    );
    this.#stopWatching = this.driver.watch?.((change) => this.#noticed(change));
  }

  /** Lists everything anew; what changed meanwhile through this server stays as it is. */
  refresh(signal: AbortSignal): Promise<void> {
    this.#refreshing ??= this.#relist(signal).finally(() => {
      this.#refreshing = undefined;
      this.#touched = undefined;
    });
    return this.#refreshing;
  }

  async #relist(signal: AbortSignal): Promise<void> {
    const touched = new Set<string>();
    this.#touched = touched;
    const listing = await this.driver.list(this.#operations.context(this.#log, signal));
    const merge = <R extends { id: string }>(listed: readonly R[], now: readonly R[]): R[] => [
      ...listed.filter(({ id }) => !touched.has(id)),
      ...now.filter(({ id }) => touched.has(id)),
    ];
    this.inventory.load({
      volumes: merge(listing.volumes, this.inventory.volumes.all()),
      snapshots: merge(listing.snapshots, this.inventory.snapshots.all()),
    });
  }

  /** Someone changed the backend by hand: look again, one object at a time and under its lock. */
  #noticed({ volumeIDs, snapshotIDs }: Change): void {
    const failed = (error: unknown): void => this.#log.warn({ error }, "refresh failed");
    if (volumeIDs === undefined && snapshotIDs === undefined)
      this.refresh(AbortSignal.timeout(60_000)).catch(failed);
    for (const id of volumeIDs ?? [])
      this.#operations.locks.run(this.lockKey(id), () => this.reread(id)).catch(failed);
    for (const id of snapshotIDs ?? [])
      this.#operations.locks.run(this.lockKey(id), () => this.rereadSnapshot(id)).catch(failed);
  }

  /** Brings one volume of the inventory up to the backend's state. */
  async reread(id: string, context?: OpContext): Promise<VolumeRecord | undefined> {
    const volume = await this.driver.volumeInspect(id, context ?? this.#look());
    if (volume === undefined) this.#dropVolume(id);
    else this.#putVolume(volume);
    return volume;
  }

  async rereadSnapshot(id: string, context?: OpContext): Promise<SnapshotRecord | undefined> {
    const snapshot = await this.driver.snapshotInspect(id, context ?? this.#look());
    if (snapshot === undefined) this.#dropSnapshot(id);
    else this.#putSnapshot(snapshot);
    return snapshot;
  }

  #look(): OpContext {
    return this.#operations.context(this.#log, AbortSignal.timeout(30_000));
  }

  #putVolume(volume: VolumeRecord): void {
    this.#touched?.add(volume.id);
    this.inventory.volumes.put(volume);
  }

  #dropVolume(id: string): void {
    this.#touched?.add(id);
    this.inventory.volumes.remove(id);
  }

  #putSnapshot(snapshot: SnapshotRecord): void {
    this.#touched?.add(snapshot.id);
    this.inventory.snapshots.put(snapshot);
  }

  #dropSnapshot(id: string): void {
    this.#touched?.add(id);
    this.inventory.snapshots.remove(id);
  }

  // ---- new volumes

  volumeCreate(request: NewVolume, caller: Caller): Promise<VolumeRecord> {
    return this.#create("volumeCreate", request, {}, caller, () => ({
      volume: this.#draft(request),
      make: (volume, context) => this.driver.volumeCreate(volume, context),
    }));
  }

  volumeCopy(sourceID: string, request: NewObject, caller: Caller): Promise<VolumeRecord> {
    return this.#create("volumeCopy", request, { sourceID }, caller, () => {
      const source = this.#usable(this.volume(sourceID));
      const { sizeBytes, type, availabilityZone, iops } = source;
      const volume = {
        ...this.#draft({
          name: request.name,
          type,
          availabilityZone,
          iops,
          fields: { ...source.fields, ...request.fields },
        }),
        sizeBytes,
      };
      return {
        volume,
        make: async (draft, context) => {
          if (this.driver.volumeCopy === undefined) throw this.#unable("copy volumes");
          return this.driver.volumeCopy(source, draft, context);
        },
      };
    });
  }

  volumeCreateFromSnapshot(
    snapshotID: string,
    request: NewVolume,
    caller: Caller,
  ): Promise<VolumeRecord> {
    return this.#create("volumeCreateFromSnapshot", request, { snapshotID }, caller, () => {
      const source = this.#usable(this.snapshot(snapshotID));
      const { snapshots } = this.driver;
      if (snapshots === undefined) throw this.#unable("create volumes from snapshots");
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
      return {
        volume,
        make: (draft, context) => snapshots.volumeCreateFromSnapshot(source, draft, context),
      };
    });
  }

  /** What the three ways to a new volume share. */
  #create(
    operation: string,
    request: NewVolume | NewObject,
    from: { sourceID?: string; snapshotID?: string },
    caller: Caller,
    plan: () => {
      volume: VolumeRecord;
      make: (volume: VolumeRecord, context: OpContext) => Promise<VolumeRecord>;
    },
  ): Promise<VolumeRecord> {
    const source = from.sourceID ?? from.snapshotID;
    const byName = this.settings.uniqueNames ? `name:${request.name.toLowerCase()}` : undefined;
    const lock = source === undefined ? byName : this.#normalize(source);
    return this.#operations.run(
      {
        operation,
        service: this.name,
        ...(lock !== undefined && { lock: this.lockKey(lock) }),
        request: { ...from, ...request },
        prepare: () => {
          if (this.settings.uniqueNames) this.#refuseTakenName(request.name);
          const { volume, make } = plan();
          return { work: this.#creation(volume, make) };
        },
      },
      caller,
    );
  }

  #creation(
    volume: VolumeRecord,
    make: (volume: VolumeRecord, context: OpContext) => Promise<VolumeRecord>,
  ): Work<VolumeRecord> {
    return {
      subject: { volumeID: volume.id, sizeBytes: volume.sizeBytes },
      counters: { [this.#counter("volume")]: this.#lastVolume + 1 },
      run: (context) => make(volume, context),
      apply: (made) => this.#putVolume(made),
      takeBack: async (context) => {
        await this.driver.volumeRemove(volume.id, context);
        this.#dropVolume(volume.id);
      },
    };
  }

  #draft(request: NewVolume): VolumeRecord {
    return {
      id: this.#nextVolumeID(),
      name: request.name,
      sizeBytes: this.#sizeFor(request.sizeBytes),
      type: request.type ?? "",
      availabilityZone: request.availabilityZone ?? "",
      iops: request.iops ?? 0,
      encrypted: request.encrypted ?? false,
      fields: request.fields,
      attachments: [],
      epoch: 0,
      source: { kind: "none" },
    };
  }

  /** 0 is "no limit" where a volume can be without one, and the default size where it cannot. */
  #sizeFor(asked: number | undefined): number {
    const { defaultSizeBytes, allocationUnitBytes, type } = this.driver;
    const isDefault = asked === undefined || (asked === 0 && type === "block");
    return roundUp(isDefault ? defaultSizeBytes : asked, allocationUnitBytes);
  }

  #nextVolumeID(): string {
    for (;;) {
      this.#lastVolume += 1;
      const id = this.driver.ids.volumeID(this.#lastVolume);
      if (this.inventory.volumes.get(id) === undefined) return id;
    }
  }

  #nextSnapshotID(volumeID: string): string {
    for (;;) {
      this.#lastSnapshot += 1;
      const id = this.driver.ids.snapshotID(this.#lastSnapshot, volumeID);
      if (this.inventory.snapshots.get(id) === undefined) return id;
    }
  }

  /** Counters hold the next number, so that 0 means none was given. */
  #counter(kind: "volume" | "snapshot"): string {
    return `${kind}:${this.name}`;
  }

  #refuseTakenName(name: string): void {
    const taken = this.inventory.volumes.named(name);
    if (taken === undefined) return;
    throw new StorageError(
      "already-exists",
      `service ${this.name} has a volume named ${name} already: ${taken.id}; choose another name or use that volume`,
      { volumeID: taken.id, name },
    );
  }

  // ---- changing volumes

  volumeExpand(volumeID: string, sizeBytes: number, caller: Caller): Promise<VolumeRecord> {
    const id = this.#normalize(volumeID);
    return this.#operations.run(
      {
        operation: "volumeExpand",
        service: this.name,
        lock: this.lockKey(id),
        request: { volumeID: id, sizeBytes },
        prepare: () => {
          const volume = this.#usable(this.volume(id));
          if (this.driver.volumeExpand === undefined) throw this.#unable("expand volumes");
          const size = roundUp(sizeBytes, this.driver.allocationUnitBytes);
          if (size === volume.sizeBytes) return { settled: volume };
          if (size < volume.sizeBytes || volume.sizeBytes === 0)
            throw new StorageError(
              "invalid-argument",
              volume.sizeBytes === 0
                ? `volume ${id} has no size limit, so it cannot be expanded`
                : `volume ${id} has ${volume.sizeBytes} bytes and cannot shrink to ${size}; copy its data to a smaller volume instead`,
              { volumeID: id, sizeBytes: volume.sizeBytes },
            );
          return {
            work: this.#change(volume, { sizeBytes: size }, (context) =>
              this.#expand(volume, size, context),
            ),
          };
        },
      },
      caller,
    );
  }

  async #expand(volume: VolumeRecord, size: number, context: OpContext): Promise<VolumeRecord> {
    if (this.driver.volumeExpand === undefined) throw this.#unable("expand volumes");
    return this.driver.volumeExpand(volume, size, context);
  }

  /** Work that ends with another record of the same volume; after a failure the backend's word counts. */
  #change(
    volume: VolumeRecord,
    subject: { sizeBytes?: number; holder?: InstanceID; force?: boolean },
    run: (context: OpContext) => Promise<VolumeRecord>,
  ): Work<VolumeRecord> {
    return {
      subject: { volumeID: volume.id, ...subject },
      run,
      apply: (changed) => this.#putVolume(changed),
      takeBack: async (context) => {
        await this.reread(volume.id, context);
      },
    };
  }

  volumeAttach(
    volumeID: string,
    to: InstanceID,
    { deviceName, force }: { deviceName: string; force: boolean },
    caller: Caller,
  ): Promise<Attached> {
    const id = this.#normalize(volumeID);
    return this.#operations.run(
      {
        operation: "volumeAttach",
        service: this.name,
        lock: this.lockKey(id),
        request: { volumeID: id, to, deviceName, force },
        prepare: () => this.#prepareAttach(id, to, deviceName, force),
      },
      caller,
    );
  }

  #prepareAttach(
    id: string,
    to: InstanceID,
    deviceName: string,
    force: boolean,
  ): Prepared<Attached> {
    const volume = this.#usable(this.volume(id));
    const grant = decideAttach(volume, to, force, isShareable(volume, this.settings.shareable));
    if (grant.kind === "held") return { settled: this.#attached(volume, grant.attachment) };
    const epoch = volume.epoch + 1;
    const attachment = { instanceID: to, deviceName, status: "attached", epoch, since: Date.now() };
    return {
      work: {
        subject: { volumeID: id, holder: to, force },
        run: async (context) => {
          let current = volume;
          for (const { instanceID } of grant.cut)
            current = await this.driver.volumeDetach(current, instanceID, true, context);
          const attached = await this.driver.volumeAttach(
            { ...current, epoch },
            attachment,
            context,
          );
          return this.#attached(attached, heldBy(attached, to) ?? attachment);
        },
        apply: (attached) => this.#putVolume(attached.volume),
        takeBack: async (context) => {
          const now = await this.reread(id, context);
          if (now === undefined || heldBy(now, to) === undefined) return;
          this.#putVolume(await this.driver.volumeDetach(now, to, false, context));
        },
      },
    };
  }

  #attached(volume: VolumeRecord, attachment: AttachmentRecord): Attached {
    return { volume, attachment, attachToken: this.driver.attachToken(attachment) };
  }

  /**
   * Takes an instance's hold away. One that holds nothing gets the volume as it is; with `force` it takes
   * every other holder's away, for a volume that is stuck on a dead host.
   */
  volumeDetach(
    volumeID: string,
    from: InstanceID,
    force: boolean,
    caller: Caller,
  ): Promise<VolumeRecord> {
    const id = this.#normalize(volumeID);
    return this.#operations.run(
      {
        operation: "volumeDetach",
        service: this.name,
        lock: this.lockKey(id),
        request: { volumeID: id, from, force },
        prepare: () => {
          const volume = this.#usable(this.volume(id));
          const own = heldBy(volume, from);
          const cut = own !== undefined ? [own] : force ? volume.attachments : [];
          if (cut.length === 0) return { settled: volume };
          return {
            work: this.#change(volume, { holder: from, force }, (context) =>
              this.#cut(volume, cut, force, context),
            ),
          };
        },
      },
      caller,
    );
  }

  async #cut(
    volume: VolumeRecord,
    holders: readonly AttachmentRecord[],
    force: boolean,
    context: OpContext,
  ): Promise<VolumeRecord> {
    let current = volume;
    for (const { instanceID } of holders)
      current = await this.driver.volumeDetach(current, instanceID, force, context);
    return current;
  }

  volumeRemove(volumeID: string, force: boolean, caller: Caller): Promise<null> {
    const id = this.#normalize(volumeID);
    return this.#operations.run(
      {
        operation: "volumeRemove",
        service: this.name,
        lock: this.lockKey(id),
        request: { volumeID: id, force },
        prepare: () => {
          const volume = this.volume(id);
          if (volume.broken !== undefined && !force) this.#usable(volume);
          if (volume.attachments.length > 0 && !force)
            throw heldByOther(volume, "remove", "detach it first, or remove it with force");
          return { work: this.#removal(volume, force) };
        },
      },
      caller,
    );
  }

  #removal(volume: VolumeRecord, force: boolean): Work<null> {
    const { id } = volume;
    return {
      subject: { volumeID: id, force },
      run: async (context) => {
        await this.#cut(volume, volume.attachments, true, context);
        await this.driver.volumeRemove(id, context);
        return null;
      },
      apply: () => this.#dropVolume(id),
      // What the backend no longer lists is gone for good: clear the rest, or leave that to recovery.
      takeBack: async (context) => {
        if ((await this.reread(id, context)) === undefined)
          await this.driver.volumeRemove(id, context);
      },
    };
  }

  // ---- snapshots

  volumeSnapshot(volumeID: string, request: NewObject, caller: Caller): Promise<SnapshotRecord> {
    const id = this.#normalize(volumeID);
    return this.#operations.run(
      {
        operation: "volumeSnapshot",
        service: this.name,
        lock: this.lockKey(id),
        request: { volumeID: id, ...request },
        prepare: () => {
          const source = this.#usable(this.volume(id));
          const { snapshots } = this.driver;
          if (snapshots === undefined) throw this.#unable("make snapshots");
          const { type, availabilityZone, iops, sizeBytes } = source;
          const snapshot = this.#snapshotDraft(id, request, {
            sizeBytes,
            origin: { type, availabilityZone, iops },
            fields: { ...source.fields, ...request.fields },
          });
          return this.#snapshotCreation(snapshot, (context) =>
            snapshots.snapshotCreate(source, snapshot, context),
          );
        },
      },
      caller,
    );
  }

  snapshotCopy(snapshotID: string, request: NewObject, caller: Caller): Promise<SnapshotRecord> {
    const id = this.#normalize(snapshotID);
    return this.#operations.run(
      {
        operation: "snapshotCopy",
        service: this.name,
        lock: this.lockKey(id),
        request: { snapshotID: id, ...request },
        prepare: () => {
          const source = this.#usable(this.snapshot(id));
          const { snapshots } = this.driver;
          const copy = snapshots?.snapshotCopy?.bind(snapshots);
          if (copy === undefined) throw this.#unable("copy snapshots");
          const { sizeBytes, origin, volumeID } = source;
          const snapshot = this.#snapshotDraft(volumeID, request, {
            sizeBytes,
            ...(origin !== undefined && { origin }),
            fields: { ...source.fields, ...request.fields },
          });
          return this.#snapshotCreation(snapshot, (context) => copy(source, snapshot, context));
        },
      },
      caller,
    );
  }

  #snapshotDraft(
    volumeID: string,
    { name }: NewObject,
    rest: Pick<SnapshotRecord, "sizeBytes" | "origin" | "fields">,
  ): SnapshotRecord {
    return {
      id: this.#nextSnapshotID(volumeID),
      name,
      volumeID,
      encrypted: false,
      startTime: Date.now(),
      status: "online",
      source: { kind: "none" },
      ...rest,
    };
  }

  #snapshotCreation(
    snapshot: SnapshotRecord,
    run: (context: OpContext) => Promise<SnapshotRecord>,
  ): Prepared<SnapshotRecord> {
    return {
      work: {
        subject: { snapshotID: snapshot.id, volumeID: snapshot.volumeID },
        counters: { [this.#counter("snapshot")]: this.#lastSnapshot + 1 },
        run,
        apply: (made) => this.#putSnapshot(made),
        takeBack: async (context) => {
          await this.driver.snapshots?.snapshotRemove(snapshot.id, context);
          this.#dropSnapshot(snapshot.id);
        },
      },
    };
  }

  snapshotRemove(snapshotID: string, caller: Caller): Promise<null> {
    const id = this.#normalize(snapshotID);
    return this.#operations.run(
      {
        operation: "snapshotRemove",
        service: this.name,
        lock: this.lockKey(id),
        request: { snapshotID: id },
        prepare: () => {
          this.snapshot(id);
          const { snapshots } = this.driver;
          if (snapshots === undefined) throw this.#unable("remove snapshots");
          return {
            work: {
              subject: { snapshotID: id },
              run: async (context) => {
                await snapshots.snapshotRemove(id, context);
                return null;
              },
              apply: () => this.#dropSnapshot(id),
              takeBack: async (context) => {
                if ((await this.rereadSnapshot(id, context)) === undefined)
                  await snapshots.snapshotRemove(id, context);
              },
            },
          };
        },
      },
      caller,
    );
  }

  // ---- refusals

  #usable<R extends { id: string; broken?: string }>(record: R): R {
    if (record.broken === undefined) return record;
    throw new StorageError(
      "failed-precondition",
      `${record.id} cannot be used: ${record.broken}; repair it, or remove it with force`,
      { service: this.name, id: record.id, broken: record.broken },
    );
  }

  #unable(what: string): StorageError {
    return new StorageError(
      "unimplemented",
      `service ${this.name}: the ${this.driverName} driver cannot ${what}`,
      { service: this.name, driver: this.driverName },
    );
  }

  async close(): Promise<void> {
    this.#stopWatching?.();
    await this.driver.close();
  }
}
