/**
 * One configured instance of a driver, with all rules: order, locks, undo, rounding, who may hold what.
 * Reads are answered from the inventory; writes go through `Operations`, each under its volume's lock.
 */
import { ABILITIES, notFound } from "@libstorage/model";
import type { AbilityName, Capacity, DriverInfo, Instance, InstanceID } from "@libstorage/model";
import type { Exporter } from "./exporter.js";
import { Exports } from "./exports.js";
import { Changes } from "./changes.js";
import { Contents } from "./contents.js";
import type { Attached, AttachRequest } from "./changes.js";
import { Creations } from "./creations.js";
import type { NewObject, NewVolume } from "./creations.js";
import type {
  ImageCheck,
  ImageSize,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "./driver.js";
import { Holds } from "./holds.js";
import { ImageWork } from "./image-work.js";
import type { ShrinkRequest } from "./image-work.js";
import { Inventory } from "./inventory.js";
import { lockKeyOf } from "./locks.js";
import { Names } from "./names.js";
import type { Caller, Operations, Prepared } from "./operations.js";
import type { Logger } from "./log.js";
import { Reverts } from "./reverts.js";
import { Updates } from "./updates.js";
import type { UpdateRequest } from "./updates.js";

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
  /** Through which other hosts get the volumes. */
  readonly exporter?: Exporter;
  /** Through which volumes are served on this host, beside that one. */
  readonly exporters?: readonly Exporter[];
  readonly settings: ServiceSettings;
  readonly operations: Operations;
  readonly log: Logger;
}

export class StorageService {
  readonly name: string;
  readonly driverName: string;
  readonly driver: StorageDriver;
  readonly exporter: Exporter | undefined;
  readonly holds: Holds;
  readonly inventory: Inventory;
  readonly exports: Exports;
  settings: ServiceSettings;
  readonly #operations: Operations;
  readonly #creations: Creations;
  readonly #changes: Changes;
  readonly #images: ImageWork;
  readonly #reverts: Reverts;
  readonly #updates: Updates;
  readonly #log: Logger;
  readonly #names: Names;
  /** Content as streams, and what has changed. */
  readonly content: Contents;

  constructor(options: ServiceOptions) {
    const { name, driverName, driver, exporter, exporters, settings, operations, log } = options;
    this.name = name;
    this.#log = log.child({ service: name });
    this.driverName = driverName;
    this.driver = driver;
    this.exporter = exporter;
    this.holds = new Holds(name, driver, exporter, exporters);
    driver.useLive?.((...asked) => this.holds.live(...asked));
    this.settings = settings;
    this.inventory = new Inventory(name, driver, operations, this.#log);
    this.#operations = operations;
    this.#creations = new Creations(driverName, driver, this.inventory);
    this.#images = new ImageWork(driver, this.inventory);
    this.#reverts = new Reverts(driverName, driver, this.inventory);
    this.#updates = new Updates(driverName, driver, this.inventory);
    this.#changes = new Changes(driver, this.holds, this.inventory);
    this.#names = new Names(this, operations);
    this.content = new Contents(this, this.#creations, this.#names, operations, this.#log);
    this.exports = new Exports({
      service: name,
      driverName,
      driver,
      holds: this.holds,
      inventory: this.inventory,
      operations,
      log: this.#log,
      normalize: (id) => this.normalized(id),
      isShareable: () => this.settings.shareable,
    });
  }

  get info(): DriverInfo {
    return { name: this.driverName, type: this.driver.type, nextDevice: this.driver.nextDevice };
  }

  /** What the service can do besides making, attaching and removing volumes. */
  get abilities(): readonly AbilityName[] {
    const { driver } = this;
    const has: Record<AbilityName, boolean> = {
      copy: driver.volumeCopy !== undefined,
      expand: driver.volumeExpand !== undefined,
      expandOnline: driver.volumeExpand !== undefined && this.holds.canGrow,
      snapshot: driver.snapshots !== undefined,
      snapshotCopy: driver.snapshots?.snapshotCopy !== undefined,
      revert: driver.reverts !== undefined,
      capacity: driver.capacity !== undefined,
      content: driver.content !== undefined,
      changes: driver.changes !== undefined,
    };
    return ABILITIES.filter((name) => has[name]);
  }

  /** Undefined when the driver cannot tell. */
  async capacity(): Promise<Capacity | undefined> {
    return this.driver.capacity?.(this.#context());
  }

  /** For what is done before an operation begins, or without one. */
  #context(): OpContext {
    return this.#operations.context(this.#log, AbortSignal.timeout(30_000));
  }

  // ---- reading

  /** @throws {StorageError} `not-found` */
  volume(id: string): VolumeRecord {
    return this.#found("volume", id, this.inventory.volumes.get(this.normalized(id)));
  }

  /** The first volume of that name, without case. @throws {StorageError} `not-found` */
  volumeNamed(name: string): VolumeRecord {
    return this.#found("volume", name, this.inventory.volumes.named(name));
  }

  /** @throws {StorageError} `not-found` */
  snapshot(id: string): SnapshotRecord {
    return this.#found("snapshot", id, this.inventory.snapshots.get(this.normalized(id)));
  }

  /** The first snapshot of that name, without case. @throws {StorageError} `not-found` */
  snapshotNamed(name: string): SnapshotRecord {
    return this.#found("snapshot", name, this.inventory.snapshots.named(name));
  }

  #found<R>(what: string, id: string, record: R | undefined): R {
    if (record === undefined) throw notFound(what, id, { service: this.name });
    return record;
  }

  instanceInspect(id: InstanceID): Instance {
    return this.driver.instanceInspect(id);
  }

  /** An id as the driver has it. */
  normalized(id: string): string {
    return this.driver.ids.normalize?.(id) ?? id;
  }

  // ---- volumes

  volumeCreate(request: NewVolume, caller: Caller): Promise<VolumeRecord> {
    return this.#names.taking("volume", request.name, caller, (takeName) =>
      // Without a lock: nobody else knows the new id.
      this.#run("volumeCreate", undefined, request, caller, () => {
        takeName();
        return { work: this.#creations.volume(request) };
      }),
    );
  }

  volumeCopy(volumeID: string, request: NewObject, caller: Caller): Promise<VolumeRecord> {
    return this.#names.taking("volume", request.name, caller, (takeName) =>
      this.#on("volumeCopy", volumeID, request, caller, (id) => {
        takeName();
        return { work: this.#creations.volumeCopy(this.volume(id), request) };
      }),
    );
  }

  /** Copies a volume of another service into this one, under the source's lock. */
  volumeCopyFrom(
    from: StorageService,
    volumeID: string,
    request: NewObject,
    caller: Caller,
  ): Promise<VolumeRecord> {
    const id = from.normalized(volumeID);
    const asked = { id, from: from.name, ...request };
    return this.#names.taking("volume", request.name, caller, (takeName) =>
      this.#run("volumeCopy", lockKeyOf(from.name, id), asked, caller, () => {
        takeName();
        return { work: this.#creations.volumeCopyFrom(from, from.volume(id), request) };
      }),
    );
  }

  volumeCreateFromSnapshot(
    snapshotID: string,
    request: NewVolume,
    caller: Caller,
  ): Promise<VolumeRecord> {
    return this.#names.taking("volume", request.name, caller, (takeName) =>
      this.#on("volumeCreateFromSnapshot", snapshotID, request, caller, (id) => {
        takeName();
        return { work: this.#creations.volumeFromSnapshot(this.snapshot(id), request) };
      }),
    );
  }

  volumeExpand(volumeID: string, sizeBytes: number, caller: Caller): Promise<VolumeRecord> {
    return this.#on("volumeExpand", volumeID, { sizeBytes }, caller, (id) =>
      this.#changes.expand(this.volume(id), sizeBytes),
    );
  }

  volumeRevert(volumeID: string, snapshotID: string, caller: Caller): Promise<VolumeRecord> {
    const from = this.normalized(snapshotID);
    const { locks } = this.#operations;
    // Inside the volume's lock: no operation takes the two the other way round.
    const hold = <R>(act: () => Promise<R>): Promise<R> =>
      locks.run(lockKeyOf(this.name, from), act);
    return this.#on("volumeRevert", volumeID, { snapshotID: from }, caller, (id) => ({
      work: this.#reverts.revert(this.volume(id), this.snapshot(from), hold),
    }));
  }

  volumeUpdate(volumeID: string, request: UpdateRequest, caller: Caller): Promise<VolumeRecord> {
    return this.#names.taking("volume", request.name ?? "", caller, (takeName) =>
      this.#on("volumeUpdate", volumeID, request, caller, (id) =>
        this.#updates.update(this.volume(id), request, takeName),
      ),
    );
  }

  volumeCheck(volumeID: string, repair: boolean, caller: Caller): Promise<ImageCheck> {
    return this.#on("volumeCheck", volumeID, { repair }, caller, (id) => ({
      work: this.#images.check(this.volume(id), repair),
    }));
  }

  volumeMeasure(volumeID: string, format: string, caller: Caller): Promise<ImageSize> {
    return this.#on("volumeMeasure", volumeID, { format }, caller, (id) => ({
      work: this.#images.measure(this.volume(id), format),
    }));
  }

  volumeConvert(volumeID: string, format: string, caller: Caller): Promise<VolumeRecord> {
    return this.#on("volumeConvert", volumeID, { format }, caller, (id) => ({
      work: this.#images.convert(this.volume(id), format),
    }));
  }

  volumeShrink(volumeID: string, request: ShrinkRequest, caller: Caller): Promise<VolumeRecord> {
    return this.#on("volumeShrink", volumeID, request, caller, (id) =>
      this.#images.shrink(this.volume(id), request),
    );
  }

  volumeAttach(volumeID: string, request: AttachRequest, caller: Caller): Promise<Attached> {
    return this.#on("volumeAttach", volumeID, request, caller, (id) =>
      this.#changes.attach(this.volume(id), request, this.settings.shareable, this.#context()),
    );
  }

  volumeDetach(
    volumeID: string,
    from: InstanceID,
    force: boolean,
    caller: Caller,
  ): Promise<VolumeRecord> {
    return this.#on("volumeDetach", volumeID, { from, force }, caller, (id) =>
      this.#changes.detach(this.volume(id), from, force),
    );
  }

  volumeRemove(volumeID: string, force: boolean, caller: Caller): Promise<null> {
    return this.#on("volumeRemove", volumeID, { force }, caller, (id) => ({
      work: this.#changes.remove(this.volume(id), force),
    }));
  }

  // ---- snapshots

  volumeSnapshot(volumeID: string, request: NewObject, caller: Caller): Promise<SnapshotRecord> {
    return this.#names.taking("snapshot", request.name, caller, (takeName) =>
      this.#on("volumeSnapshot", volumeID, request, caller, (id) => {
        takeName();
        return { work: this.#creations.snapshot(this.volume(id), request) };
      }),
    );
  }

  snapshotCopy(snapshotID: string, request: NewObject, caller: Caller): Promise<SnapshotRecord> {
    return this.#names.taking("snapshot", request.name, caller, (takeName) =>
      this.#on("snapshotCopy", snapshotID, request, caller, (id) => {
        takeName();
        return { work: this.#creations.snapshotCopy(this.snapshot(id), request) };
      }),
    );
  }

  snapshotRemove(snapshotID: string, caller: Caller): Promise<null> {
    return this.#on("snapshotRemove", snapshotID, {}, caller, (id) => ({
      work: this.#changes.snapshotRemove(this.snapshot(id)),
    }));
  }

  // ---- running

  /** An operation on one object, under its lock. */
  #on<T>(
    operation: string,
    rawID: string,
    request: object,
    caller: Caller,
    plan: (id: string) => Prepared<T> | Promise<Prepared<T>>,
  ): Promise<T> {
    const id = this.normalized(rawID);
    const lock = lockKeyOf(this.name, id);
    return this.#run(operation, lock, { id, ...request }, caller, () => plan(id));
  }

  #run<T>(
    operation: string,
    lock: string | undefined,
    request: object,
    caller: Caller,
    prepare: () => Prepared<T> | Promise<Prepared<T>>,
  ): Promise<T> {
    return this.#operations.run(
      {
        operation,
        service: this.name,
        ...(lock !== undefined && { lock }),
        request,
        prepare,
      },
      caller,
    );
  }

  async close(): Promise<void> {
    this.exports.stop();
    this.inventory.stop();
    for (const exporter of this.holds.exporters.values()) await exporter.close();
    await this.driver.close();
  }
}
