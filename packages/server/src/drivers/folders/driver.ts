/** Volumes as folders. Each method checks, changes through the doors, and answers what then stands there. */
import { statfs } from "node:fs/promises";
import { GIB, isSameInstance, StorageError } from "@libstorage/model";
import type { DriverType, Instance, InstanceID, NextDeviceInfo } from "@libstorage/model";
import type {
  Ability,
  AttachmentRecord,
  Change,
  ContentAbilities,
  DriverContext,
  IdScheme,
  Listing,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "../../core/driver.js";
import { heldBy } from "../../core/access.js";
import { exporterOf } from "../../core/exporter.js";
import type { Backing, IdleVolumes, Purpose } from "./backing.js";
import { CONTENT_FIELD, folderContent } from "./content.js";
import { failureOf } from "./failures.js";
import { instanceByHostName } from "./instance.js";
import {
  checkNothingMounted,
  checkRemovable,
  checkUnmounted,
  place,
  removeAll,
  takeAway,
} from "./placing.js";
import { exchange, settle, settleAll } from "./reverting.js";
import { snapshotText, volumeText } from "./records.js";
import type { SnapshotText, VolumeText } from "./records.js";
import type { Shelf } from "./shelf.js";
import { openSnapshotShelf, openVolumeShelf } from "./shelves.js";
import { change, existing, folderOf, isSameVolume, orUndo, ownEnd, whatIsThere } from "./steps.js";
import type { Verb } from "./steps.js";
import { OwnChanges, watchShelves } from "./watch.js";

const SNAPSHOT = { what: "snapshot", sizeBytes: 0, projectID: undefined } as const;

const NEXT_DEVICE: NextDeviceInfo = { ignore: true, prefix: "", pattern: "" };

export interface FolderService {
  /** The driver's. */
  readonly name: string;
  readonly type: DriverType;
  readonly ids: IdScheme;
  /** An absolute path without links. */
  readonly root: string;
  readonly backing: Backing;
}

/** What a new volume holds. */
interface Filling {
  readonly from?: () => string;
  readonly receive?: (to: string, purpose: Purpose) => Promise<void>;
}

export class FolderDriver implements StorageDriver {
  readonly type: DriverType;
  readonly nextDevice = NEXT_DEVICE;
  readonly allocationUnitBytes = GIB;
  readonly defaultSizeBytes = GIB;
  readonly ids: IdScheme;
  readonly mutable = ["name", "fields"] as const;
  readonly ownFolders: readonly string[];
  readonly #name: string;
  readonly #root: string;
  readonly #context: DriverContext;
  readonly #backing: Backing;
  readonly #volumes: Shelf<VolumeText>;
  readonly #snapshots: Shelf<SnapshotText>;
  readonly #ownVolumes: OwnChanges<VolumeText>;
  readonly #ownSnapshots: OwnChanges<SnapshotText>;
  readonly content?: ContentAbilities;
  /** Leftovers of an earlier run, being removed. */
  #cleaning: Promise<void> | undefined;

  constructor({ name, type, ids, root, backing }: FolderService, context: DriverContext) {
    this.type = type;
    this.ids = ids;
    this.ownFolders = [root];
    this.#name = name;
    this.#root = root;
    this.#context = context;
    this.#backing = backing;
    this.#volumes = openVolumeShelf(root, backing);
    this.#snapshots = openSnapshotShelf(root, backing);
    this.#ownVolumes = new OwnChanges(this.#volumes);
    this.#ownSnapshots = new OwnChanges(this.#snapshots);
    backing.useVolumes?.(() => this.#idleVolumes());
    if (backing.streams !== undefined)
      this.content = folderContent(backing.streams, {
        volumePath: (id) => folderOf(this.#volumes, id),
        snapshotPath: (id) => folderOf(this.#snapshots, id),
        receive: (volume, receive, own) => this.#makeVolume(volume, { receive }, own),
      });
  }

  async list(context: OpContext): Promise<Listing> {
    try {
      const volumes = await this.#volumes.list((...half) => this.#ownVolumes.isOnItsWay(...half));
      const snapshots = await this.#snapshots.list((...half) =>
        this.#ownSnapshots.isOnItsWay(...half),
      );
      const records = volumes.entries.map(({ record }) => record);
      const beside = this.#backing.leftovers?.(records) ?? [];
      const temporaries = [...volumes.temporaries, ...snapshots.temporaries, ...beside];
      this.#clean(temporaries, volumes.reverts, context);
      await this.#backing.listed?.(records);
      return {
        volumes: records,
        snapshots: snapshots.entries.map(({ record }) => record),
      };
    } catch (error) {
      throw failureOf(error, `list ${this.#root}`);
    }
  }

  async #idleVolumes(): Promise<IdleVolumes> {
    const busy = this.#ownVolumes.busyIDs();
    const { entries } = await this.#volumes.list((...half) => this.#ownVolumes.isOnItsWay(...half));
    const volumes = entries.map(({ record }) => record).filter(({ id }) => !busy.has(id));
    return { volumes, areAll: busy.size === 0 };
  }

  /** Removes or ends what earlier runs left; only when nothing of this run can be among it. */
  #clean(paths: readonly string[], reverts: ReadonlySet<string>, context: OpContext): void {
    if (this.#cleaning !== undefined || paths.length + reverts.size === 0) return;
    if (!this.#ownVolumes.isIdle || !this.#ownSnapshots.isIdle) return;
    const work = [
      removeAll(this.#backing, paths, context),
      settleAll(this.#backing, this.#volumes, reverts, context),
    ];
    this.#cleaning = Promise.all(work).then(() => {
      this.#cleaning = undefined;
    });
  }

  async volumeInspect(id: string): Promise<VolumeRecord | undefined> {
    return this.#volumes.read(id)?.record;
  }

  async snapshotInspect(id: string): Promise<SnapshotRecord | undefined> {
    return this.#snapshots.read(id)?.record;
  }

  watch(onChange: (change: Change) => void): () => void {
    return watchShelves(this.#ownVolumes, this.#ownSnapshots, this.#context.log, onChange);
  }

  volumeCreate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#makeVolume(volume, {}, context);
  }

  /** Whoever detached it may have left the mount. */
  volumeCheckUnused(id: string): void {
    this.#checkUnused(id, "be removed");
    checkRemovable(this.#volumes, id);
  }

  volumeRemove(id: string, context: OpContext, isUnused = false): Promise<void> {
    return this.#changeVolume(id, "remove", context, () => {
      if (!isUnused) this.volumeCheckUnused(id);
      return this.#takeVolumeAway(id, context, true);
    });
  }

  volumeUpdate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#changeVolume(volume.id, "update", context, () => {
      const { projectID } = this.#existing(volume.id);
      return this.#writeVolume(volume, projectID, context);
    });
  }

  volumeAttach(
    volume: VolumeRecord,
    attachment: AttachmentRecord,
    context: OpContext,
  ): Promise<VolumeRecord> {
    return this.#changeVolume(volume.id, "attach", context, () => {
      const { projectID } = this.#existing(volume.id);
      const isHolder = ({ instanceID }: AttachmentRecord): boolean =>
        isSameInstance(instanceID, attachment.instanceID);
      const deviceName = attachment.deviceName || this.#volumes.dataPath(volume.id);
      const attachments = volume.attachments.some(isHolder)
        ? volume.attachments
        : [...volume.attachments, { ...attachment, deviceName }];
      const epoch = Math.max(volume.epoch, attachment.epoch);
      return this.#writeVolume({ ...volume, attachments, epoch }, projectID, context);
    });
  }

  volumeDetach(
    volume: VolumeRecord,
    holder: InstanceID,
    force: boolean,
    context: OpContext,
  ): Promise<VolumeRecord> {
    return this.#changeVolume(volume.id, "detach", context, () => {
      const { projectID } = this.#existing(volume.id);
      const held = heldBy(volume, holder);
      // Who came through an exporter has no mount here; the exporter has cut it off.
      const isExported = held !== undefined && exporterOf(held) !== undefined;
      const others = volume.attachments.filter((other) => exporterOf(other) !== undefined);
      if (force && !isExported) this.#checkUnused(volume.id, `be taken from ${holder.id}`, others);
      const attachments = volume.attachments.filter(
        ({ instanceID }) => !isSameInstance(instanceID, holder),
      );
      return this.#writeVolume({ ...volume, attachments }, projectID, context);
    });
  }

  /**
   * A holder on this host uses the folder through a bind mount; while there is one, its data stays there.
   * @param exported other holders, whose exporter may have mounted what it exports
   */
  #checkUnused(id: string, doing: string, exported: readonly AttachmentRecord[] = []): void {
    checkUnmounted(this.#volumes.dataPath(id), id, doing, exported);
  }

  volumeCopyFrom({ id, source }: VolumeRecord, volume: VolumeRecord, context: OpContext) {
    if (source.kind === "directory")
      return this.#makeVolume(volume, { from: () => source.path }, context);
    throw new StorageError("failed-precondition", `volume ${id} has no folder to copy`);
  }

  volumeCopy(source: VolumeRecord, volume: VolumeRecord, context: OpContext) {
    const from = (): string => folderOf(this.#volumes, source.id);
    return this.#makeVolume(volume, { from }, context);
  }

  volumeExpand(volume: VolumeRecord, sizeBytes: number, context: OpContext) {
    return this.#changeVolume(volume.id, "expand", context, async () => {
      const { projectID } = this.#existing(volume.id);
      const grown = { ...volume, sizeBytes };
      const path = this.#volumes.dataPath(volume.id);
      const limited = await this.#backing.limit(path, grown, projectID, context);
      return this.#writeVolume(grown, limited, context);
    });
  }

  readonly reverts = {
    volumeRevert: (volume: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#changeVolume(volume.id, "revert", context, () =>
        this.#revert(volume, snapshot, context),
      ),
    volumeRevertSettle: (id: string, context: OpContext) =>
      this.#changeVolume(id, "revert", context, async () => {
        await this.#cleaning;
        await settle(this.#backing, this.#volumes, id, context);
      }),
  };

  async #revert(volume: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) {
    const { id, sizeBytes } = volume;
    const [backing, shelf] = [this.#backing, this.#volumes];
    await this.#cleaning;
    await settle(backing, shelf, id, context);
    const before = this.#existing(id).projectID;
    const from = folderOf(this.#snapshots, snapshot.id);
    this.#checkUnused(id, "go back to a snapshot");
    checkNothingMounted(from, `copy ${from}`);
    checkNothingMounted(shelf.dataPath(id), `revert volume ${id}`);
    // Both the old and the new data would count for one project.
    const purpose = { what: "volume", sizeBytes, projectID: undefined } as const;
    const projectID = backing.projectIDOf?.(volume) ?? before;
    const text = volumeText(volume, projectID);
    const build = async (path: string): Promise<string> => {
      await backing.copy(from, path, purpose, context);
      return text;
    };
    await ownEnd(
      () => exchange(backing, shelf, id, build, context),
      (own) => settle(backing, shelf, id, own),
      context,
    );
    await backing.limit(shelf.dataPath(id), volume, undefined, context);
    return shelf.asWritten(id, text).record;
  }

  readonly snapshots = {
    snapshotCreate: (source: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#makeSnapshot(() => folderOf(this.#volumes, source.id), snapshot, context),
    snapshotRemove: (id: string, context: OpContext) =>
      change(this.#ownSnapshots, id, "remove", context, () =>
        takeAway(this.#backing, this.#snapshots, id, context),
      ),
    snapshotCopy: (source: SnapshotRecord, snapshot: SnapshotRecord, context: OpContext) => {
      // One of the reference has no data to copy.
      const from = (): string | undefined =>
        existing(this.#snapshots, source.id).hasData
          ? folderOf(this.#snapshots, source.id)
          : undefined;
      return this.#makeSnapshot(from, snapshot, context);
    },
    volumeCreateFromSnapshot: (source: SnapshotRecord, volume: VolumeRecord, context: OpContext) =>
      this.#makeVolume(volume, { from: () => folderOf(this.#snapshots, source.id) }, context),
  };

  instanceInspect(id: InstanceID): Instance {
    return instanceByHostName(id, `${this.#name}Instance`);
  }

  /** Only a device that the client named itself appears among its local devices. */
  attachToken({ deviceName }: AttachmentRecord): string {
    const isFolder = deviceName.startsWith(`${this.#volumes.folder}/`);
    return deviceName.startsWith("/dev/") && !isFolder ? deviceName.toLowerCase() : "";
  }

  abilities(context: OpContext): Promise<readonly Ability[]> {
    return this.#backing.abilities(context);
  }

  async capacity() {
    const { bavail, blocks, bsize } = await statfs(this.#root);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  }

  async close(): Promise<void> {
    await this.#cleaning;
    await this.#backing.close?.();
  }

  #changeVolume<R>(id: string, verb: Verb, context: OpContext, act: () => Promise<R>) {
    return change(this.#ownVolumes, id, verb, context, act);
  }

  /** @throws {StorageError} `not-found`, or `failed-precondition` when it is broken */
  #existing(id: string): VolumeText {
    return existing(this.#volumes, id);
  }

  async #takeVolumeAway(id: string, context: OpContext, isRemovable = false): Promise<void> {
    const { projectID, record } = this.#volumes.read(id) ?? {};
    await takeAway(this.#backing, this.#volumes, id, context, isRemovable);
    await this.#backing.forget?.(id, projectID, context);
    const contentID = record?.fields[CONTENT_FIELD];
    if (contentID === undefined || this.#backing.streams?.release === undefined) return;
    const { entries } = await this.#volumes.list(() => true);
    const isNeeded = entries.some((one) => one.record.fields[CONTENT_FIELD] === contentID);
    if (!isNeeded) await this.#backing.streams.release(contentID, context);
  }

  async #writeVolume(volume: VolumeRecord, projectID: number | undefined, context: OpContext) {
    const text = volumeText(volume, projectID);
    await context.files.write(this.#volumes.recordPath(volume.id), text);
    return this.#volumes.asWritten(volume.id, text).record;
  }

  /** Of data that are there or come; of neither it is empty. */
  #makeVolume(volume: VolumeRecord, { from, receive }: Filling, context: OpContext) {
    const shelf = this.#volumes;
    const { id } = volume;
    return this.#changeVolume(id, "create", context, async () => {
      // It may be removing the leftovers of an earlier try, under the names that this one needs.
      await this.#cleaning;
      const before = whatIsThere(shelf, id, (there) => isSameVolume(there, volume));
      if (before !== undefined) return this.#writeVolume(volume, before.projectID, context);
      const folder = from?.();
      const projectID = this.#backing.projectIDOf?.(volume);
      const purpose = { what: "volume", sizeBytes: volume.sizeBytes, projectID } as const;
      const text = volumeText(volume, projectID);
      await orUndo(
        () => {
          const filling = receive && ((to: string) => receive(to, purpose));
          const placing = { shelf, id, text, folder, receive: filling, purpose };
          return place(this.#backing, placing, context);
        },
        (undoContext) => this.#takeVolumeAway(id, undoContext),
        context,
      );
      return shelf.asWritten(id, text).record;
    });
  }

  /** @param from where the data is; it answers undefined for a snapshot without */
  #makeSnapshot(from: () => string | undefined, snapshot: SnapshotRecord, context: OpContext) {
    const shelf = this.#snapshots;
    const { id } = snapshot;
    return change(this.#ownSnapshots, id, "create", context, async () => {
      await this.#cleaning;
      const isSame = (there: SnapshotRecord): boolean =>
        there.name === snapshot.name && there.volumeID === snapshot.volumeID;
      const before = whatIsThere(shelf, id, isSame);
      const folder = before === undefined ? from() : undefined;
      const text = snapshotText(snapshot, before?.hasData ?? folder !== undefined);
      if (folder === undefined) await context.files.write(shelf.recordPath(id), text);
      else
        await orUndo(
          () => place(this.#backing, { shelf, id, text, folder, purpose: SNAPSHOT }, context),
          (undoContext) => takeAway(this.#backing, shelf, id, undoContext),
          context,
        );
      return shelf.asWritten(id, text).record;
    });
  }
}
