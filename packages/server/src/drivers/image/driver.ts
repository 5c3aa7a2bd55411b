/**
 * Volumes as image files. Each has a folder of its own with its record beside it, as the folder drivers
 * have; their shelves, records and watches are shared.
 */
import { statSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { GIB, StorageError, isSameInstance } from "@libstorage/model";
import type { Instance, InstanceID } from "@libstorage/model";
import { heldBy } from "../../core/access.js";
import type {
  Ability,
  AttachmentRecord,
  Change,
  DriverContext,
  ImageAbilities,
  Listing,
  OpContext,
  SnapshotRecord,
  Source,
  StorageDriver,
  VolumeRecord,
} from "../../core/driver.js";
import { exporterOf } from "../../core/exporter.js";
import { Locks } from "../../core/locks.js";
import { failureOf } from "../folders/failures.js";
import { folderIDs } from "../folders/ids.js";
import { takeAway } from "../folders/placing.js";
import { snapshotText, volumeText } from "../folders/records.js";
import type { ImageNote, SnapshotText, VolumeText } from "../folders/records.js";
import type { Parsed, Shelf } from "../folders/shelf.js";
import { openSnapshotShelf, openVolumeShelf } from "../folders/shelves.js";
import { change, existing, isSameVolume, orUndo, whatIsThere } from "../folders/steps.js";
import type { Verb } from "../folders/steps.js";
import { OwnChanges, watchShelf } from "../folders/watch.js";
import { abilitiesOf } from "./abilities.js";
import { ImageBuilder, checkUnused } from "./build.js";
import type { Original } from "./build.js";
import type { ImageConfig } from "./config.js";
import { diskPath, flawOfFolder } from "./layers.js";
import { convertDisk, formatNamed, shrinkDisk } from "./maintenance.js";
import { checkImage, measureImage, resizeImage } from "./qemu-img.js";
import { readQcow2Header } from "../../images/qcow2-header.js";

const MIB = 1024 ** 2;
const DEFERRED = { isSyncDeferred: true };
const SNAPSHOT_NUMBER = /-\d{3,15}$/;

const RULES = {
  flawOf: flawOfFolder,
  sourceOf(text: VolumeText | SnapshotText, folder: string): Source {
    const { image } = text;
    if (image === undefined) throw new Error("it does not state the image's format");
    return { kind: "file", path: diskPath(folder, image.format), format: sourceFormat(image) };
  },
};

/** What an exporter has to open: an encrypted image says so, for it needs the key. */
function sourceFormat({ format, isEncrypted = false }: ImageNote): string {
  if (!isEncrypted) return format;
  return format === "qcow2" ? "qcow2+luks" : "luks";
}

/** Only plain files and folders of the driver's own are removed. */
const PLAIN = {
  isAtomic: false,
  discard: (path: string, { files }: OpContext) => files.removeTree(path, DEFERRED),
} as const;

export class ImageDriver implements StorageDriver {
  readonly type = "block";
  readonly nextDevice = { ignore: true, prefix: "", pattern: "" };
  readonly allocationUnitBytes = MIB;
  readonly defaultSizeBytes = GIB;
  readonly ids = folderIDs("image");
  readonly isHostBound = true;
  readonly ownFolders: readonly string[];
  readonly #root: string;
  readonly #context: DriverContext;
  readonly #builder: ImageBuilder;
  readonly #volumes: Shelf<VolumeText>;
  readonly #snapshots: Shelf<SnapshotText>;
  readonly #ownVolumes: OwnChanges<VolumeText>;
  readonly #ownSnapshots: OwnChanges<SnapshotText>;
  /** By volume: its inner snapshots are in one file with it, and a freeze replaces that file. */
  readonly #families = new Locks();
  #cleaning: Promise<void> | undefined;

  constructor(root: string, config: ImageConfig, context: DriverContext) {
    this.ownFolders = [root];
    this.#root = root;
    this.#context = context;
    this.#builder = new ImageBuilder(root, config);
    this.#volumes = openVolumeShelf(root, RULES);
    this.#snapshots = openSnapshotShelf(root, RULES);
    this.#ownVolumes = new OwnChanges(this.#volumes);
    this.#ownSnapshots = new OwnChanges(this.#snapshots);
  }

  async list(context: OpContext): Promise<Listing> {
    try {
      const volumes = await this.#volumes.list((...half) => this.#ownVolumes.isOnItsWay(...half));
      const snapshots = await this.#snapshots.list((...half) =>
        this.#ownSnapshots.isOnItsWay(...half),
      );
      this.#clean([...volumes.temporaries, ...snapshots.temporaries], context);
      return {
        volumes: volumes.entries.map(({ record }) => record),
        snapshots: snapshots.entries.map(({ record }) => record),
      };
    } catch (error) {
      throw failureOf(error, `list ${this.#root}`);
    }
  }

  /** Removes what earlier runs left; only when nothing of this run can be among it. */
  #clean(paths: readonly string[], context: OpContext): void {
    if (this.#cleaning !== undefined || paths.length === 0) return;
    if (!this.#ownVolumes.isIdle || !this.#ownSnapshots.isIdle) return;
    const remove = async (path: string): Promise<void> =>
      PLAIN.discard(path, context).catch((error: unknown) =>
        context.log.warn({ error, path }, "a leftover could not be removed"),
      );
    this.#cleaning = Promise.all(paths.map(remove)).then(() => {
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
    const { log } = this.#context;
    const stopVolumes = watchShelf(this.#ownVolumes, log, (volumeIDs) =>
      onChange(volumeIDs === undefined ? {} : { volumeIDs }),
    );
    const stopSnapshots = watchShelf(this.#ownSnapshots, log, (snapshotIDs) =>
      onChange(snapshotIDs === undefined ? {} : { snapshotIDs }),
    );
    return () => {
      stopVolumes();
      stopSnapshots();
    };
  }

  volumeCreate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#makeVolume(volume, context, (folder) =>
      this.#builder.make(folder, volume, context),
    );
  }

  volumeRemove(id: string, context: OpContext): Promise<void> {
    return this.#changeVolume(id, "remove", context, async () => {
      const record = this.#volumes.read(id)?.record;
      if (record?.source.kind === "file")
        checkUnused({ what: "volume", id }, record.source.path, "removed");
      await takeAway(PLAIN, this.#volumes, id, context);
    });
  }

  volumeUpdate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#changeVolume(volume.id, "update", context, () =>
      this.#writeVolume(volume, this.#noteOf(volume.id), context),
    );
  }

  volumeAttach(volume: VolumeRecord, attachment: AttachmentRecord, context: OpContext) {
    return this.#changeVolume(volume.id, "attach", context, () => {
      const note = this.#noteOf(volume.id);
      const attachments =
        heldBy(volume, attachment.instanceID) === undefined
          ? [...volume.attachments, this.#localDoor(volume.id, note, attachment)]
          : volume.attachments;
      const epoch = Math.max(volume.epoch, attachment.epoch);
      return this.#writeVolume({ ...volume, attachments, epoch }, note, context);
    });
  }

  /** A holder on this host is told the file and its format; one that comes through an exporter is left as it is. */
  #localDoor(id: string, note: ImageNote, attachment: AttachmentRecord): AttachmentRecord {
    if (attachment.fields !== undefined) return attachment;
    const path = diskPath(this.#volumes.dataPath(id), note.format);
    const fields = { path, format: sourceFormat(note) };
    return { ...attachment, deviceName: attachment.deviceName || path, fields };
  }

  volumeDetach(volume: VolumeRecord, holder: InstanceID, force: boolean, context: OpContext) {
    return this.#changeVolume(volume.id, "detach", context, () => {
      const note = this.#noteOf(volume.id);
      const held = heldBy(volume, holder);
      // Who came through an exporter was cut off by it.
      if (force && held !== undefined && exporterOf(held) === undefined) {
        const path = diskPath(this.#volumes.dataPath(volume.id), note.format);
        checkUnused({ what: "volume", id: volume.id }, path, `taken from ${holder.id}`);
      }
      const attachments = volume.attachments.filter(
        ({ instanceID }) => !isSameInstance(instanceID, holder),
      );
      return this.#writeVolume({ ...volume, attachments }, note, context);
    });
  }

  volumeCopy(source: VolumeRecord, volume: VolumeRecord, context: OpContext) {
    return this.#makeVolume(volume, context, (folder) =>
      this.#families.run(source.id, () =>
        this.#builder.copy(this.#originalVolume(source.id), folder, volume, context),
      ),
    );
  }

  volumeExpand(volume: VolumeRecord, sizeBytes: number, context: OpContext) {
    const { id } = volume;
    return this.#changeVolume(id, "expand", context, () =>
      this.#families.run(id, async () => {
        const note = this.#noteOf(id);
        if (note.format === "iso")
          throw new StorageError(
            "failed-precondition",
            `volume ${id} is an ISO file, which has one size`,
          );
        const image = this.#builder.opened({ folder: this.#volumes.dataPath(id), note });
        await resizeImage(image, sizeBytes, {}, context).catch((error: unknown) => {
          throw whileHeld(volume, error);
        });
        await context.files.syncFile(image.path);
        return this.#writeVolume({ ...volume, sizeBytes }, { ...note, sizeBytes }, context);
      }),
    );
  }

  readonly images: ImageAbilities = {
    check: async (volume, repair, context) => {
      const original = this.#originalVolume(volume.id);
      if (repair) checkUnused(original, this.#builder.imageOf(original).path, "repaired");
      return checkImage(this.#builder.opened(original), repair, context);
    },
    measure: async (volume, format, context) => {
      const image = this.#builder.opened(this.#originalVolume(volume.id));
      return measureImage(image, formatNamed(format), context);
    },
    convert: (volume, format, context) =>
      this.#changeVolume(volume.id, "convert", context, () =>
        this.#families.run(volume.id, () =>
          convertDisk(
            this.#builder,
            this.#originalVolume(volume.id),
            formatNamed(format),
            (note) => this.#writeVolume(volume, note, context),
            context,
          ),
        ),
      ),
    shrink: (volume, sizeBytes, discardData, context) =>
      this.#changeVolume(volume.id, "shrink", context, () =>
        this.#families.run(volume.id, async () => {
          const original = this.#originalVolume(volume.id);
          const note = await shrinkDisk(this.#builder, original, sizeBytes, discardData, context);
          return this.#writeVolume({ ...volume, sizeBytes }, note, context);
        }),
      ),
  };

  readonly snapshots = {
    snapshotCreate: (source: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#makeSnapshot(() => this.#originalVolume(source.id), snapshot, context),
    snapshotRemove: (id: string, context: OpContext) =>
      change(this.#ownSnapshots, id, "remove", context, () => this.#takeSnapshotAway(id, context)),
    snapshotCopy: (source: SnapshotRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#makeSnapshot(() => this.#originalSnapshot(source.id), snapshot, context),
    volumeCreateFromSnapshot: (source: SnapshotRecord, volume: VolumeRecord, context: OpContext) =>
      this.#makeVolume(volume, context, (folder) =>
        this.#families.run(source.volumeID, () =>
          this.#builder.copy(this.#originalSnapshot(source.id), folder, volume, context),
        ),
      ),
  };

  instanceInspect(id: InstanceID): Instance {
    const about = { name: "imageInstance", providerName: "" };
    if (id.id !== "") return { instanceID: id, ...about };
    throw new StorageError("invalid-argument", "the instance ID is empty");
  }

  /** Only a device that the client named itself appears among its local devices. */
  attachToken({ deviceName }: AttachmentRecord): string {
    const isOwn = deviceName.startsWith(`${this.#root}/`);
    return deviceName.startsWith("/dev/") && !isOwn ? deviceName.toLowerCase() : "";
  }

  abilities(context: OpContext): Promise<readonly Ability[]> {
    return abilitiesOf(this.#root, context);
  }

  async capacity() {
    const { bavail, blocks, bsize } = await statfs(this.#root);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  }

  async close(): Promise<void> {
    await this.#cleaning;
  }

  #changeVolume<R>(id: string, verb: Verb, context: OpContext, act: () => Promise<R>) {
    return change(this.#ownVolumes, id, verb, context, act);
  }

  /** @throws {StorageError} `not-found`, or `failed-precondition` when it is broken */
  #noteOf(id: string): ImageNote {
    return noteOf(this.#volumes, id);
  }

  /** @throws {StorageError} `failed-precondition` while another host may write */
  #originalVolume(id: string): Original {
    const note = noteOf(this.#volumes, id);
    const holder = this.#volumes.read(id)?.record.attachments.find(exporterOf);
    if (holder !== undefined)
      throw new StorageError(
        "failed-precondition",
        `volume ${id} cannot be copied: it is exported to ${holder.instanceID.id}, which may write to it meanwhile; detach it there and try again`,
        { volumeID: id, holder: holder.instanceID.id },
      );
    return { what: "volume", id, folder: this.#volumes.dataPath(id), note };
  }

  #originalSnapshot(id: string): Original {
    const note = noteOf(this.#snapshots, id);
    return { what: "snapshot", id, folder: this.#snapshots.dataPath(id), note };
  }

  async #writeVolume(volume: VolumeRecord, note: ImageNote, context: OpContext) {
    const text = volumeText(volume, undefined, note);
    await context.files.write(this.#volumes.recordPath(volume.id), text);
    return this.#volumes.asWritten(volume.id, text).record;
  }

  /** @param build puts the image into an empty folder */
  #makeVolume(
    volume: VolumeRecord,
    context: OpContext,
    build: (folder: string) => Promise<ImageNote>,
  ): Promise<VolumeRecord> {
    const shelf = this.#volumes;
    const { id } = volume;
    return this.#changeVolume(id, "create", context, async () => {
      // It may be removing the leftovers of an earlier try, under the names that this one needs.
      await this.#cleaning;
      const before = whatIsThere(shelf, id, (there) => isSameVolume(there, volume));
      if (before?.image !== undefined) return this.#writeVolume(volume, before.image, context);
      let text = "";
      const make = async (folder: string): Promise<string> => {
        const note = await build(folder);
        const encrypted = volume.encrypted || note.isEncrypted === true;
        text = volumeText({ ...volume, encrypted }, undefined, note);
        return text;
      };
      await orUndo(
        () => placeFolder(shelf, id, make, context),
        (undoContext) => takeAway(PLAIN, shelf, id, undoContext),
        context,
      );
      return shelf.asWritten(id, text).record;
    });
  }

  #makeSnapshot(original: () => Original, snapshot: SnapshotRecord, context: OpContext) {
    const shelf = this.#snapshots;
    const { id, volumeID } = snapshot;
    return change(this.#ownSnapshots, id, "create", context, async () => {
      await this.#cleaning;
      const isSame = (there: SnapshotRecord): boolean =>
        there.name === snapshot.name && there.volumeID === volumeID;
      const before = whatIsThere(shelf, id, isSame);
      if (before !== undefined) {
        const text = snapshotText(snapshot, true, before.image);
        await context.files.write(shelf.recordPath(id), text);
        return shelf.asWritten(id, text).record;
      }
      let text = "";
      const build = async (folder: string): Promise<string> => {
        const note = await this.#families.run(volumeID, () =>
          this.#builder.snapshot(original(), folder, id, context),
        );
        text = snapshotText(snapshot, true, note);
        return text;
      };
      await orUndo(
        () => placeFolder(shelf, id, build, context),
        (undoContext) => this.#takeSnapshotAway(id, undoContext),
        context,
      );
      return shelf.asWritten(id, text).record;
    });
  }

  #takeSnapshotAway(id: string, context: OpContext): Promise<void> {
    return this.#families.run(id.replace(SNAPSHOT_NUMBER, ""), async () => {
      await this.#removeInner(id, context);
      await takeAway(PLAIN, this.#snapshots, id, context);
    });
  }

  /** One that was cut short may be in the volume's file without a folder of its own. */
  async #removeInner(id: string, context: OpContext): Promise<void> {
    const volumeID = id.replace(SNAPSHOT_NUMBER, "");
    const isEncrypted =
      (this.#snapshots.read(id)?.image ?? this.#volumes.read(volumeID)?.image)?.isEncrypted ===
      true;
    const seen = new Set<number>();
    const folders = [this.#snapshots.dataPath(id), this.#volumes.dataPath(volumeID)];
    for (const folder of folders) {
      const path = diskPath(folder, "qcow2");
      const stats = statSync(path, { throwIfNoEntry: false });
      if (stats === undefined || seen.has(stats.ino)) continue;
      seen.add(stats.ino);
      if (readQcow2Header(path).innerSnapshots > 0)
        await this.#builder.removeInner(folder, id, isEncrypted, context);
    }
  }
}

/** Some exporters take a new size while they serve, and some keep everybody out. */
function whileHeld({ id, attachments }: VolumeRecord, error: unknown): unknown {
  const holder = attachments.find(exporterOf);
  const isHeld = error instanceof StorageError && error.code === "failed-precondition";
  if (holder === undefined || !isHeld) return error;
  return new StorageError(
    "failed-precondition",
    `volume ${id} cannot be expanded while it is exported to ${holder.instanceID.id} through ${exporterOf(holder)}; detach it there, expand it, and attach it again`,
    { ...error.data, volumeID: id, holder: holder.instanceID.id },
    { cause: error },
  );
}

/** @throws {StorageError} `not-found`, or `failed-precondition` when it is broken */
function noteOf<T extends Parsed & { readonly image?: ImageNote | undefined }>(
  shelf: Shelf<T>,
  id: string,
): ImageNote {
  const { image } = existing(shelf, id);
  if (image !== undefined) return image;
  throw new StorageError("failed-precondition", `the record of ${id} does not state its format`);
}

/** Puts folder and record of a new id where nothing is yet. @param build fills the folder, answers the record */
async function placeFolder<T extends Parsed>(
  shelf: Shelf<T>,
  id: string,
  build: (folder: string) => Promise<string>,
  { files }: OpContext,
): Promise<void> {
  const copy = shelf.copyPath(id);
  await files.removeTree(copy, DEFERRED);
  await files.makeFolder(copy, 0o700, DEFERRED);
  const text = await build(copy);
  await files.syncFolder(copy);
  await files.rename(copy, shelf.dataPath(id), DEFERRED);
  // Its synced folder covers both names.
  await files.write(shelf.recordPath(id), text);
}
