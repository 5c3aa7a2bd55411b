/** What the cases of the driver contract work with. */
import assert from "node:assert/strict";
import { openExec, openFiles, NO_FAULTS, SILENT } from "@libstorage/server";
import type {
  AttachmentRecord,
  DriverContext,
  FaultPlan,
  Listing,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "@libstorage/server";
import { GIB } from "@libstorage/model";

/** Where one case runs: an empty backend. */
export interface Place {
  open(context: DriverContext): Promise<StorageDriver>;
  /** What is left in the backend; nothing when the service is empty. */
  leftovers(): Promise<readonly string[]>;
  close(): Promise<void>;
}

/** How the contract reaches one driver. */
export interface Harness {
  /** Why it cannot run here, or false. */
  readonly skip: string | false;
  /** Before the first case and after the last. */
  before?(): Promise<void>;
  after?(): Promise<void>;
  place(): Promise<Place>;
  /** What is made is still there when the driver is opened again; else the reason. */
  readonly isDurable: true | string;
  /** Volumes are folders on this host; else the reason. */
  readonly hasFolders: true | string;
  /** Changes pass the doors where faults can be planned; else why the cases about that are left out. */
  readonly hasDoors: true | string;
  /** Which cases run, where all of them would take too long; all when left out. */
  readonly isWanted?: (title: string) => boolean;
  /** Titles of cases that this driver answers otherwise, and why. */
  readonly differs?: Readonly<Record<string, string>>;
}

export interface ContextOptions {
  readonly faults?: FaultPlan;
  readonly signal?: AbortSignal;
  readonly progress?: OpContext["progress"];
}

export function contextOf(options: ContextOptions = {}): DriverContext {
  const { faults = NO_FAULTS, signal = new AbortController().signal } = options;
  return {
    signal,
    exec: openExec({ log: SILENT, faults }),
    files: openFiles(faults, signal),
    log: SILENT,
    progress: options.progress ?? (() => {}),
    service: "contract",
    libFolder: "/nonexistent",
  };
}

export function volumeOf(
  driver: StorageDriver,
  number: number,
  more: Partial<VolumeRecord> = {},
): VolumeRecord {
  return {
    id: driver.ids.volumeID(driver.ids.first + number),
    name: `volume ${number}`,
    sizeBytes: driver.defaultSizeBytes,
    type: "",
    availabilityZone: "",
    iops: 0,
    encrypted: false,
    fields: {},
    attachments: [],
    epoch: 0,
    source: { kind: "none" },
    ...more,
  };
}

export function snapshotOf(
  driver: StorageDriver,
  number: number,
  volume: VolumeRecord,
  more: Partial<SnapshotRecord> = {},
): SnapshotRecord {
  return {
    id: driver.ids.snapshotID(driver.ids.first + number, volume.id),
    name: `snapshot ${number}`,
    volumeID: volume.id,
    sizeBytes: volume.sizeBytes,
    encrypted: false,
    startTime: 1_795_000_000_000,
    status: "online",
    fields: {},
    source: { kind: "none" },
    ...more,
  };
}

export function attachmentOf(host: string, more: Partial<AttachmentRecord> = {}): AttachmentRecord {
  return {
    instanceID: { id: host, driver: "test", service: "" },
    deviceName: "/dev/xvda",
    status: "attached",
    epoch: 1,
    since: 1_795_000_000_000,
    ...more,
  };
}

/** An empty backend with a driver on it. */
export class Fixture {
  readonly harness: Harness;
  readonly place: Place;
  driver: StorageDriver;

  private constructor(harness: Harness, place: Place, driver: StorageDriver) {
    this.harness = harness;
    this.place = place;
    this.driver = driver;
  }

  static async open(harness: Harness): Promise<Fixture> {
    const place = await harness.place();
    return new Fixture(harness, place, await place.open(contextOf()));
  }

  /** As after a restart of the server. */
  async reopen(): Promise<void> {
    await this.driver.close();
    this.driver = await this.place.open(contextOf());
  }

  volume(number: number, more: Partial<VolumeRecord> = {}): VolumeRecord {
    return volumeOf(this.driver, number, more);
  }

  create(number: number, more: Partial<VolumeRecord> = {}): Promise<VolumeRecord> {
    return this.driver.volumeCreate(this.volume(number, more), contextOf());
  }

  list(): Promise<Listing> {
    return this.driver.list(contextOf());
  }

  inspect(id: string): Promise<VolumeRecord | undefined> {
    return this.driver.volumeInspect(id, contextOf());
  }

  attach(volume: VolumeRecord, host: string, more: Partial<AttachmentRecord> = {}) {
    return this.driver.volumeAttach(volume, attachmentOf(host, more), contextOf());
  }

  detach(volume: VolumeRecord, host: string, force = false): Promise<VolumeRecord> {
    const { instanceID } = attachmentOf(host);
    return this.driver.volumeDetach(volume, instanceID, force, contextOf());
  }

  copyVolume(source: VolumeRecord, volume: VolumeRecord, context: OpContext) {
    const copy = this.driver.volumeCopy?.(source, volume, context);
    assert.ok(copy !== undefined, "cases for copies run only where there is volumeCopy");
    return copy;
  }

  get snapshots() {
    const { snapshots } = this.driver;
    assert.ok(snapshots !== undefined, "cases for snapshots run only where there are some");
    return snapshots;
  }

  get reverts() {
    const { reverts } = this.driver;
    assert.ok(reverts !== undefined, "cases for reverts run only where there are some");
    return reverts;
  }

  copySnapshot(source: SnapshotRecord, snapshot: SnapshotRecord, context: OpContext) {
    const copy = this.snapshots.snapshotCopy?.(source, snapshot, context);
    assert.ok(copy !== undefined, "cases for copies run only where there is snapshotCopy");
    return copy;
  }

  snapshot(number: number, volume: VolumeRecord, more: Partial<SnapshotRecord> = {}) {
    const snapshot = snapshotOf(this.driver, number, volume, more);
    return this.snapshots.snapshotCreate(volume, snapshot, contextOf());
  }

  /** Removes all there is, and proves that nothing is left of it. */
  async empty(): Promise<void> {
    const { volumes, snapshots } = await this.list();
    const { driver } = this;
    await Promise.all(
      snapshots.map(async ({ id }) => driver.snapshots?.snapshotRemove(id, contextOf())),
    );
    await Promise.all(volumes.map(({ id }) => driver.volumeRemove(id, contextOf())));
    assert.deepEqual(await this.list(), { volumes: [], snapshots: [] }, "left in the list");
    await this.driver.close();
    assert.deepEqual(await this.place.leftovers(), [], "left in the backend");
  }
}

/** One case of the contract. */
export interface Case {
  readonly title: string;
  /** Why a driver does not take this case, or undefined when it does. */
  readonly unless?: (driver: StorageDriver, harness: Harness) => string | undefined;
  run(fixture: Fixture): Promise<void>;
}

export const needsCopy = (driver: StorageDriver): string | undefined =>
  driver.volumeCopy === undefined ? "the driver cannot copy volumes" : undefined;

export const needsExpand = (driver: StorageDriver): string | undefined =>
  driver.volumeExpand === undefined ? "the driver cannot expand volumes" : undefined;

export const needsSnapshots = (driver: StorageDriver): string | undefined =>
  driver.snapshots === undefined ? "the driver has no snapshots" : undefined;

export const needsReverts = (driver: StorageDriver): string | undefined =>
  driver.reverts === undefined ? "the driver cannot revert volumes" : undefined;

export const needsSnapshotCopy = (driver: StorageDriver): string | undefined =>
  driver.snapshots?.snapshotCopy === undefined ? "the driver cannot copy snapshots" : undefined;

export const needsDurability = (_driver: StorageDriver, harness: Harness): string | undefined =>
  reasonOf(harness.isDurable);

function reasonOf(value: true | string): string | undefined {
  return value === true ? undefined : value;
}

export const needsFolders = (driver: StorageDriver, harness: Harness): string | undefined =>
  reasonOf(harness.hasFolders) ?? needsCopy(driver) ?? needsSnapshotCopy(driver);

/** 3 GiB, a size that is no default. */
export const OTHER_SIZE = 3 * GIB;

export async function eachOf(count: number, act: (number: number) => Promise<unknown>) {
  await Promise.all(Array.from({ length: count }, (_none, number) => act(number)));
}
