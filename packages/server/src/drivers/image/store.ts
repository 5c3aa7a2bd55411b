/** What stands below a root: the images with their records, and how they come and go. */
import { existsSync, statSync } from "node:fs";
import { StorageError } from "@libstorage/model";
import type {
  Change,
  DriverContext,
  Listing,
  LiveImages,
  OpContext,
  SnapshotRecord,
  Source,
  VolumeRecord,
} from "../../core/driver.js";
import { exporterOf } from "../../core/exporter.js";
import type { LiveImage } from "../../core/live-image.js";
import { Locks } from "../../core/locks.js";
import { readQcow2Header } from "../../images/qcow2-header.js";
import { failureOf } from "../folders/failures.js";
import { removeAll, takeAway } from "../folders/placing.js";
import { snapshotText, volumeText } from "../folders/records.js";
import type { ImageNote, SnapshotText, VolumeText } from "../folders/records.js";
import type { Parsed, Shelf } from "../folders/shelf.js";
import { openSnapshotShelf, openVolumeShelf } from "../folders/shelves.js";
import { exchange, settle, settleAll } from "../folders/reverting.js";
import { change, existing, isSameVolume, orUndo, ownEnd, whatIsThere } from "../folders/steps.js";
import type { Verb } from "../folders/steps.js";
import { OwnChanges, watchShelves } from "../folders/watch.js";
import { checkUnused } from "./build.js";
import type { ImageBuilder, Original, Served } from "./build.js";
import { diskPath, flawOfFolder } from "./layers.js";
import { withSizeNow } from "./sizes.js";
import { leftSpools } from "./spool.js";

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
export function sourceFormat({ format, isEncrypted = false }: ImageNote): string {
  if (!isEncrypted) return format;
  return format === "qcow2" ? "qcow2+luks" : "luks";
}

/** The volume of a snapshot, by its id. */
function familyOf(snapshotID: string): string {
  return snapshotID.replace(SNAPSHOT_NUMBER, "");
}

/** Only plain files and folders of the driver's own are removed. */
const PLAIN = {
  isAtomic: false,
  discard: (path: string, { files }: OpContext) => files.removeTree(path, DEFERRED),
} as const;

export class ImageStore {
  readonly root: string;
  readonly #context: DriverContext;
  readonly #builder: ImageBuilder;
  readonly #volumes: Shelf<VolumeText>;
  readonly #snapshots: Shelf<SnapshotText>;
  readonly #ownVolumes: OwnChanges<VolumeText>;
  readonly #ownSnapshots: OwnChanges<SnapshotText>;
  /** By volume: its inner snapshots are in one file with it, and a freeze replaces that file. */
  readonly families = new Locks();
  #cleaning: Promise<void> | undefined;
  #live: LiveImages | undefined;

  constructor(root: string, builder: ImageBuilder, context: DriverContext) {
    this.root = root;
    this.#context = context;
    this.#builder = builder;
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
      const plain = [...volumes.temporaries, ...leftSpools(this.root)];
      this.#clean(plain, snapshots.temporaries, volumes.reverts, context);
      return {
        // The record of others is right, and a look at each image would take its time.
        volumes: volumes.entries
          .map((text) => (text.record.attachments.some(exporterOf) ? this.#sized(text) : text))
          .map(({ record }) => record),
        snapshots: snapshots.entries.map(({ record }) => record),
      };
    } catch (error) {
      throw failureOf(error, `list ${this.root}`);
    }
  }

  /** Removes or ends what earlier runs left; only when nothing of this run can be among it. */
  #clean(
    plain: readonly string[],
    ofSnapshots: readonly string[],
    reverts: ReadonlySet<string>,
    context: OpContext,
  ): void {
    const count = plain.length + ofSnapshots.length + reverts.size;
    if (this.#cleaning !== undefined || count === 0) return;
    if (!this.#ownVolumes.isIdle || !this.#ownSnapshots.isIdle) return;
    const discard = (path: string, own: OpContext): Promise<void> => {
      const id = this.#snapshots.idOf(path);
      if (id === undefined) return PLAIN.discard(path, own);
      return this.families.run(familyOf(id), () => this.#discardSnapshot(id, path, own));
    };
    const work = [
      removeAll(PLAIN, plain, context),
      removeAll({ discard }, ofSnapshots, context),
      settleAll(PLAIN, this.#volumes, reverts, context),
    ];
    this.#cleaning = Promise.all(work).then(() => {
      this.#cleaning = undefined;
    });
  }

  volume(id: string): VolumeRecord | undefined {
    const text = this.#volumes.read(id);
    return text && this.#sized(text).record;
  }

  snapshot(id: string): SnapshotRecord | undefined {
    return this.#snapshots.read(id)?.record;
  }

  /** The folder of a volume's image. */
  folderOf(id: string): string {
    return this.#volumes.dataPath(id);
  }

  watch(onChange: (change: Change) => void): () => void {
    return watchShelves(this.#ownVolumes, this.#ownSnapshots, this.#context.log, onChange);
  }

  removeVolume(id: string, context: OpContext): Promise<void> {
    return this.changeVolume(id, "remove", context, async () => {
      const source = this.volume(id)?.source;
      if (source?.kind === "file")
        await checkUnused({ what: "volume", id }, source.path, "removed", context);
      await takeAway(PLAIN, this.#volumes, id, context);
    });
  }

  removeSnapshot(id: string, context: OpContext): Promise<void> {
    return change(this.#ownSnapshots, id, "remove", context, () =>
      this.#takeSnapshotAway(id, context),
    );
  }

  /** Leftovers are gone, or stay. */
  async settled(): Promise<void> {
    await this.#cleaning;
  }

  changeVolume<R>(id: string, verb: Verb, context: OpContext, act: () => Promise<R>) {
    return change(this.#ownVolumes, id, verb, context, act);
  }

  /** @throws {StorageError} `not-found`, or `failed-precondition` when it is broken */
  noteOf(id: string): ImageNote {
    return this.#sized(existing(this.#volumes, id)).image ?? formatless(id);
  }

  /** What the record of a volume says of its size, whatever its image has. */
  notedSizeOf(id: string): number {
    return existing(this.#volumes, id).record.sizeBytes;
  }

  #sized(text: VolumeText): VolumeText {
    return withSizeNow(text, this.#volumes.dataPath(text.record.id));
  }

  /** @throws {StorageError} `failed-precondition` while another host may write */
  originalVolume(id: string): Original {
    const note = this.noteOf(id);
    const holder = this.#volumes.read(id)?.record.attachments.find(exporterOf);
    if (holder !== undefined)
      throw new StorageError(
        "failed-precondition",
        `volume ${id} cannot be copied or looked through: it is exported to ${holder.instanceID.id}, which may write to it meanwhile; detach it there and try again`,
        { volumeID: id, holder: holder.instanceID.id },
      );
    return { what: "volume", id, folder: this.#volumes.dataPath(id), note };
  }

  useLive(live: LiveImages): void {
    this.#live = live;
  }

  /** A volume's image as an exporter has it open. */
  async live(
    volume: VolumeRecord,
    isLocked: boolean,
    context: OpContext,
  ): Promise<LiveImage | undefined> {
    return this.#live?.(volume, isLocked, context);
  }

  /** A volume whose image an exporter has open; undefined for any other. */
  async served(id: string, context: OpContext): Promise<Served | undefined> {
    const note = this.noteOf(id);
    const volume = this.#volumes.read(id)?.record;
    const holder = volume?.attachments.find(exporterOf)?.instanceID.id;
    if (volume === undefined || holder === undefined) return undefined;
    const live = await this.live(volume, true, context);
    if (live === undefined) return undefined;
    return { what: "volume", id, folder: this.#volumes.dataPath(id), note, live, holder };
  }

  originalSnapshot(id: string): Original {
    const note = existing(this.#snapshots, id).image ?? formatless(id);
    return { what: "snapshot", id, folder: this.#snapshots.dataPath(id), note };
  }

  async writeVolume(volume: VolumeRecord, note: ImageNote, context: OpContext) {
    const { sizeBytes } = note;
    const text = volumeText({ ...volume, sizeBytes }, undefined, note);
    await context.files.write(this.#volumes.recordPath(volume.id), text);
    return this.#volumes.asWritten(volume.id, text).record;
  }

  /** @param build puts the image into an empty folder */
  makeVolume(
    volume: VolumeRecord,
    context: OpContext,
    build: (folder: string) => Promise<ImageNote>,
  ): Promise<VolumeRecord> {
    const shelf = this.#volumes;
    const { id } = volume;
    return this.changeVolume(id, "create", context, async () => {
      // It may be removing the leftovers of an earlier try, under the names that this one needs.
      await this.#cleaning;
      const before = whatIsThere(shelf, id, (there) => isSameVolume(there, volume));
      if (before?.image !== undefined) return this.writeVolume(volume, before.image, context);
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

  /** @param build puts the image into an empty folder */
  revertVolume(
    volume: VolumeRecord,
    context: OpContext,
    build: (folder: string) => Promise<ImageNote>,
  ): Promise<VolumeRecord> {
    const shelf = this.#volumes;
    const { id } = volume;
    return this.changeVolume(id, "revert", context, async () => {
      await this.#cleaning;
      await settle(PLAIN, shelf, id, context);
      const path = diskPath(this.folderOf(id), this.noteOf(id).format);
      await checkUnused({ what: "volume", id }, path, "reverted", context);
      let text = "";
      const make = async (folder: string): Promise<string> => {
        await context.files.makeFolder(folder, 0o700, DEFERRED);
        const note = await build(folder);
        text = volumeText({ ...volume, sizeBytes: note.sizeBytes }, undefined, note);
        await context.files.syncFolder(folder);
        return text;
      };
      await ownEnd(
        () => exchange(PLAIN, shelf, id, make, context),
        (own) => settle(PLAIN, shelf, id, own),
        context,
      );
      return shelf.asWritten(id, text).record;
    });
  }

  settleVolume(id: string, context: OpContext): Promise<void> {
    return this.changeVolume(id, "revert", context, async () => {
      await this.#cleaning;
      await settle(PLAIN, this.#volumes, id, context);
    });
  }

  /** @param fill puts the image into an empty folder; called while nobody else changes the volume's files */
  makeSnapshot(
    fill: (folder: string) => Promise<ImageNote>,
    snapshot: SnapshotRecord,
    context: OpContext,
  ) {
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
        const note = await this.families.run(volumeID, () => fill(folder));
        text = snapshotText({ ...snapshot, sizeBytes: note.sizeBytes }, true, note);
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

  async #takeSnapshotAway(id: string, context: OpContext): Promise<void> {
    await this.#cleaning;
    const discard = (path: string, own: OpContext): Promise<void> =>
      this.#discardSnapshot(id, path, own);
    await this.families.run(familyOf(id), () =>
      takeAway({ isAtomic: false, discard }, this.#snapshots, id, context),
    );
  }

  /** Of one that is inside its volume's image the content first: the folder is what tells of it. */
  async #discardSnapshot(id: string, folder: string, context: OpContext): Promise<void> {
    if (!existsSync(folder)) return;
    await this.#removeInner(id, folder, context);
    await PLAIN.discard(folder, context);
  }

  /** @param own has a name of the image, unless its making was cut short */
  async #removeInner(id: string, own: string, context: OpContext): Promise<void> {
    const volumeID = familyOf(id);
    const seen = new Set<number>();
    const folders = [this.#volumes.dataPath(volumeID), own];
    for (const folder of folders) {
      const path = diskPath(folder, "qcow2");
      const stats = statSync(path, { throwIfNoEntry: false });
      if (stats === undefined || seen.has(stats.ino)) continue;
      seen.add(stats.ino);
      const { innerSnapshots, isEncrypted } = readQcow2Header(path);
      if (innerSnapshots === 0) continue;
      const live = folder === folders[0] ? await this.#liveOf(volumeID, context) : undefined;
      if (live === undefined) await this.#builder.removeInner(folder, id, isEncrypted, context);
      else {
        await live.drop(id);
        await context.files.syncFile(path);
      }
    }
  }

  async #liveOf(volumeID: string, context: OpContext): Promise<LiveImage | undefined> {
    const volume = this.volume(volumeID);
    if (volume === undefined || volume.broken !== undefined) return undefined;
    return this.live(volume, false, context);
  }
}

function formatless(id: string): never {
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
