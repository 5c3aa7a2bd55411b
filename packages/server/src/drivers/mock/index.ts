/** mock: volumes that exist in memory only, for tests and demos. Section 19 of the contract. */
import { setTimeout } from "node:timers/promises";
import { GIB, isSameInstance, MUTABLE, notFound, StorageError } from "@libstorage/model";
import type { Instance, InstanceID } from "@libstorage/model";
import { defineDriver } from "../../core/driver.js";
import type {
  AttachmentRecord,
  IdScheme,
  Listing,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "../../core/driver.js";
import { MockConfig } from "./config.js";
import { SEED_SNAPSHOTS, SEED_VOLUMES } from "./seeds.js";

const NO_SOURCE = { kind: "none" } as const;

/** The reference counts from one more than it has at start. */
const FIRST = 4;

const STEPS = 10;

function numberIn(form: RegExp, id: string): number | undefined {
  const digits = form.exec(id)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

const IDS: IdScheme = {
  first: FIRST,
  volumeID: (number) => `vol-${String(number).padStart(3, "0")}`,
  snapshotID: (number) => `snap-${String(number).padStart(3, "0")}`,
  numberOfVolume: (id) => numberIn(/^vol-(\d{3,15})$/i, id),
  numberOfSnapshot: (id) => numberIn(/^snap-(\d{3,15})$/i, id),
  normalize: (id) => id.toLowerCase(),
};

/** A table whose keys compare without case. */
class Table<T extends { readonly id: string }> {
  readonly #what: string;
  readonly #rows = new Map<string, T>();

  constructor(what: string, rows: readonly T[]) {
    this.#what = what;
    for (const row of rows) this.put(row);
  }

  all(): T[] {
    return [...this.#rows.values()].toSorted((a, b) => (a.id < b.id ? -1 : 1));
  }

  find(id: string): T | undefined {
    return this.#rows.get(id.toLowerCase());
  }

  /** @throws {StorageError} `not-found` */
  get(id: string): T {
    const row = this.find(id);
    if (row === undefined) throw notFound(this.#what, id);
    return row;
  }

  put(row: T): T {
    this.#rows.set(row.id.toLowerCase(), row);
    return row;
  }

  /** Puts a new row; the same one once more is fine. @throws {StorageError} `already-exists` */
  add(row: T, isSame: (there: T) => boolean): T {
    const there = this.find(row.id);
    if (there === undefined || isSame(there)) return this.put(row);
    throw new StorageError("already-exists", `there is a ${this.#what} ${row.id} already`, {
      resourceID: row.id,
    });
  }

  remove(id: string): void {
    this.#rows.delete(id.toLowerCase());
  }
}

/** The volume name with which the reference shows a nested error, section 9 of the contract. */
const FAILING_NAME = "Volume 010";

function failingError({ iops, sizeBytes }: VolumeRecord): StorageError {
  const inner = { inner: "bzzzzT BROKEN", msg: "size required", size: sizeBytes / GIB };
  return new StorageError("internal", "iops required", { inner, iops });
}

/** Of what a client sends the mock keeps two. */
function keptFields({ fields }: VolumeRecord): Record<string, string> {
  const names = ["owner", "priority"].filter((name) => Object.hasOwn(fields, name));
  return Object.fromEntries(names.map((name) => [name, fields[name] ?? ""]));
}

class MockDriver implements StorageDriver {
  readonly type = "block";
  readonly nextDevice = { ignore: true, prefix: "xvd", pattern: "\\w" };
  readonly allocationUnitBytes = GIB;
  readonly defaultSizeBytes = GIB;
  readonly ids = IDS;
  readonly mutable = MUTABLE;
  readonly #volumes: Table<VolumeRecord>;
  readonly #snapshots: Table<SnapshotRecord>;
  readonly #delayMs: number;

  constructor({ seed, delayMs }: MockConfig) {
    this.#volumes = new Table("volume", seed ? SEED_VOLUMES : []);
    this.#snapshots = new Table("snapshot", seed ? SEED_SNAPSHOTS : []);
    this.#delayMs = delayMs;
  }

  async list(): Promise<Listing> {
    return { volumes: this.#volumes.all(), snapshots: this.#snapshots.all() };
  }

  async volumeInspect(id: string): Promise<VolumeRecord | undefined> {
    return this.#volumes.find(id);
  }

  async snapshotInspect(id: string): Promise<SnapshotRecord | undefined> {
    return this.#snapshots.find(id);
  }

  async volumeCreate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    checkCancelled(context);
    if (volume.name === FAILING_NAME) throw failingError(volume);
    return this.#addVolume({ ...volume, fields: keptFields(volume) });
  }

  async volumeRemove(id: string): Promise<void> {
    this.#volumes.remove(id);
  }

  async volumeUpdate(volume: VolumeRecord): Promise<VolumeRecord> {
    this.#volumes.get(volume.id);
    return this.#volumes.put(volume);
  }

  async volumeAttach(volume: VolumeRecord, attachment: AttachmentRecord): Promise<VolumeRecord> {
    this.#volumes.get(volume.id);
    const isHolder = volume.attachments.some(({ instanceID }) =>
      isSameInstance(instanceID, attachment.instanceID),
    );
    const attachments = isHolder ? volume.attachments : [...volume.attachments, attachment];
    const epoch = Math.max(volume.epoch, attachment.epoch);
    return this.#volumes.put({ ...volume, attachments, epoch });
  }

  async volumeDetach(volume: VolumeRecord, holder: InstanceID): Promise<VolumeRecord> {
    this.#volumes.get(volume.id);
    const attachments = volume.attachments.filter(
      ({ instanceID }) => !isSameInstance(instanceID, holder),
    );
    return this.#volumes.put({ ...volume, attachments });
  }

  async volumeCopy(source: VolumeRecord, volume: VolumeRecord, context: OpContext) {
    this.#volumes.get(source.id);
    await this.#work(context);
    return this.#addVolume(volume);
  }

  async volumeExpand(volume: VolumeRecord, sizeBytes: number): Promise<VolumeRecord> {
    this.#volumes.get(volume.id);
    return this.#volumes.put({ ...volume, sizeBytes });
  }

  readonly reverts = {
    volumeRevert: async (volume: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) => {
      this.#volumes.get(volume.id);
      this.#snapshots.get(snapshot.id);
      await this.#work(context);
      return this.#volumes.put(volume);
    },
    /** There are no data that could be half there. */
    volumeRevertSettle: async () => {},
  };

  readonly snapshots = {
    snapshotCreate: async (source: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) => {
      this.#volumes.get(source.id);
      await this.#work(context);
      return this.#addSnapshot(snapshot);
    },
    snapshotRemove: async (id: string) => {
      this.#snapshots.remove(id);
    },
    snapshotCopy: async (source: SnapshotRecord, snapshot: SnapshotRecord, context: OpContext) => {
      this.#snapshots.get(source.id);
      await this.#work(context);
      return this.#addSnapshot(snapshot);
    },
    volumeCreateFromSnapshot: async (
      source: SnapshotRecord,
      volume: VolumeRecord,
      context: OpContext,
    ) => {
      this.#snapshots.get(source.id);
      await this.#work(context);
      return this.#addVolume(volume);
    },
  };

  /** The instance of the reference's executor, whoever asks; only the id is the asking host's. */
  instanceInspect({ id }: InstanceID): Instance {
    const metadata = { max: 10, min: 0, rad: "cool", totally: "tubular" };
    const instanceID = { id: id || "12345", driver: "", service: "", metadata };
    return { instanceID, name: "mockInstance", providerName: "" };
  }

  attachToken(): string {
    return "1234";
  }

  async abilities() {
    return [{ name: "memory", available: true, detail: "nothing is kept when the server stops" }];
  }

  async close(): Promise<void> {}

  #addVolume(volume: VolumeRecord): VolumeRecord {
    const isSame = ({ name, attachments }: VolumeRecord): boolean =>
      name === volume.name && attachments.length === 0;
    return this.#volumes.add({ ...volume, source: NO_SOURCE }, isSame);
  }

  /** The reference gives a new snapshot nothing but its name and its volume. */
  #addSnapshot({ id, name, volumeID, origin }: SnapshotRecord): SnapshotRecord {
    const snapshot = {
      id,
      name,
      volumeID,
      sizeBytes: 0,
      encrypted: false,
      startTime: 0,
      status: "",
      fields: {},
      source: NO_SOURCE,
      ...(origin !== undefined && { origin }),
    };
    return this.#snapshots.add(
      snapshot,
      (there) => there.name === name && there.volumeID === volumeID,
    );
  }

  /** Passes the time that a copy would take. */
  async #work(context: OpContext): Promise<void> {
    checkCancelled(context);
    for (let step = 1; step <= STEPS && this.#delayMs > 0; step += 1) {
      try {
        await setTimeout(this.#delayMs / STEPS, undefined, { signal: context.signal });
      } catch {
        checkCancelled(context);
      }
      context.progress(step, STEPS, "steps");
    }
  }
}

function checkCancelled({ signal }: OpContext): void {
  if (signal.aborted)
    throw new StorageError(
      "cancelled",
      "the operation was cancelled",
      {},
      { cause: signal.reason },
    );
}

export const mock = defineDriver({
  name: "mock",
  config: MockConfig,
  open: async (config) => new MockDriver(config),
});
