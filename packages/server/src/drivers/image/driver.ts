/**
 * Volumes as image files. Each has a folder of its own with its record beside it, as the folder drivers
 * have; their shelves, records and watches are shared.
 */
import { statfs } from "node:fs/promises";
import { GIB, StorageError, isSameInstance } from "@libstorage/model";
import type { Instance, InstanceID } from "@libstorage/model";
import { heldBy } from "../../core/access.js";
import type {
  Ability,
  AttachmentRecord,
  Change,
  ChangeAbilities,
  ContentAbilities,
  DriverContext,
  ImageAbilities,
  Listing,
  LiveImages,
  OpContext,
  SnapshotRecord,
  StorageDriver,
  VolumeRecord,
} from "../../core/driver.js";
import { exporterOf } from "../../core/exporter.js";
import { folderIDs } from "../folders/ids.js";
import type { ImageNote } from "../folders/records.js";
import { orUndo } from "../folders/steps.js";
import { abilitiesOf } from "./abilities.js";
import { ImageBuilder, checkUnused } from "./build.js";
import { imageChanges } from "./changes.js";
import type { ImageConfig } from "./config.js";
import { imageContent } from "./content.js";
import { diskPath } from "./layers.js";
import { convertDisk, formatNamed, shrinkDisk } from "./maintenance.js";
import { checkImage, measureImage, resizeImage } from "./qemu-img.js";
import { ImageStore, sourceFormat } from "./store.js";

const MIB = 1024 ** 2;

export class ImageDriver implements StorageDriver {
  readonly type = "block";
  readonly nextDevice = { ignore: true, prefix: "", pattern: "" };
  readonly allocationUnitBytes = MIB;
  readonly defaultSizeBytes = GIB;
  readonly ids = folderIDs("image");
  readonly isHostBound = true;
  readonly mutable = ["name", "fields"] as const;
  readonly fixedFields = ["format", "preallocation", "import", "importformat", "sha256"];
  readonly ownFolders: readonly string[];
  readonly content: ContentAbilities;
  readonly changes: ChangeAbilities;
  readonly #builder: ImageBuilder;
  readonly #store: ImageStore;

  constructor(root: string, config: ImageConfig, context: DriverContext) {
    this.ownFolders = [root];
    this.#builder = new ImageBuilder(root, config);
    this.#store = new ImageStore(root, this.#builder, context);
    this.content = imageContent(this.#store, this.#builder);
    this.changes = imageChanges(this.#store, this.#builder);
  }

  useLive(live: LiveImages): void {
    this.#store.useLive(live);
  }

  list(context: OpContext): Promise<Listing> {
    return this.#store.list(context);
  }

  async volumeInspect(id: string): Promise<VolumeRecord | undefined> {
    return this.#store.volume(id);
  }

  async snapshotInspect(id: string): Promise<SnapshotRecord | undefined> {
    return this.#store.snapshot(id);
  }

  watch(onChange: (change: Change) => void): () => void {
    return this.#store.watch(onChange);
  }

  volumeCreate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#store.makeVolume(volume, context, (folder) =>
      this.#builder.make(folder, volume, context),
    );
  }

  volumeRemove(id: string, context: OpContext): Promise<void> {
    return this.#store.removeVolume(id, context);
  }

  volumeUpdate(volume: VolumeRecord, context: OpContext): Promise<VolumeRecord> {
    return this.#store.changeVolume(volume.id, "update", context, () =>
      this.#store.writeVolume(volume, this.#store.noteOf(volume.id), context),
    );
  }

  volumeAttach(volume: VolumeRecord, attachment: AttachmentRecord, context: OpContext) {
    return this.#store.changeVolume(volume.id, "attach", context, () => {
      const note = this.#store.noteOf(volume.id);
      const attachments =
        heldBy(volume, attachment.instanceID) === undefined
          ? [...volume.attachments, this.#localDoor(volume.id, note, attachment)]
          : volume.attachments;
      const epoch = Math.max(volume.epoch, attachment.epoch);
      return this.#store.writeVolume({ ...volume, attachments, epoch }, note, context);
    });
  }

  /** A holder on this host is told the file and its format; one that comes through an exporter is left as it is. */
  #localDoor(id: string, note: ImageNote, attachment: AttachmentRecord): AttachmentRecord {
    if (exporterOf(attachment) !== undefined) return attachment;
    const path = diskPath(this.#store.folderOf(id), note.format);
    const fields = { ...attachment.fields, path, format: sourceFormat(note) };
    return { ...attachment, deviceName: attachment.deviceName || path, fields };
  }

  volumeDetach(volume: VolumeRecord, holder: InstanceID, force: boolean, context: OpContext) {
    return this.#store.changeVolume(volume.id, "detach", context, async () => {
      const note = this.#store.noteOf(volume.id);
      const held = heldBy(volume, holder);
      // Who came through an exporter was cut off by it.
      if (force && held !== undefined && exporterOf(held) === undefined) {
        const path = diskPath(this.#store.folderOf(volume.id), note.format);
        const doing = `taken from ${holder.id}`;
        await checkUnused({ what: "volume", id: volume.id }, path, doing, context);
      }
      const attachments = volume.attachments.filter(
        ({ instanceID }) => !isSameInstance(instanceID, holder),
      );
      return this.#store.writeVolume({ ...volume, attachments }, note, context);
    });
  }

  volumeCopy(source: VolumeRecord, volume: VolumeRecord, context: OpContext) {
    return this.#store.makeVolume(volume, context, (folder) =>
      this.#store.families.run(source.id, () =>
        this.#builder.copy(this.#store.originalVolume(source.id), folder, volume, context),
      ),
    );
  }

  volumeExpand(volume: VolumeRecord, sizeBytes: number, context: OpContext) {
    const { id } = volume;
    return this.#store.changeVolume(id, "expand", context, () =>
      this.#store.families.run(id, async () => {
        const note = this.#store.noteOf(id);
        if (note.format === "iso")
          throw new StorageError(
            "failed-precondition",
            `volume ${id} is an ISO file, which has one size`,
          );
        const image = this.#builder.opened({ folder: this.#store.folderOf(id), note });
        const live = await this.#store.live(volume, true, context);
        // What it has may be more than anybody was told: it is never made less.
        const before = live === undefined ? note.sizeBytes : await live.sizeBytes();
        const wantedBytes = Math.max(sizeBytes, before);
        const grow = async (): Promise<void> => {
          if (wantedBytes === before) return;
          if (live !== undefined) await live.grow(wantedBytes);
          else
            await resizeImage(image, wantedBytes, {}, context).catch((error: unknown) => {
              throw whileHeld(volume, error);
            });
          await context.files.syncFile(image.path);
        };
        let grown = volume;
        await orUndo(
          async () => {
            await grow();
            const wanted = { ...note, sizeBytes: wantedBytes };
            grown = await this.#store.writeVolume(volume, wanted, context);
          },
          // Nobody has been told of what came to it. Who has it open keeps it: a size is never taken from a user.
          async (own) => {
            if (live !== undefined || this.#store.notedSizeOf(id) === wantedBytes) return;
            // What was refused has changed nothing.
            if (wantedBytes > before && this.#store.noteOf(id).sizeBytes === wantedBytes)
              await resizeImage(image, before, { shrink: true }, own);
          },
          context,
        );
        return grown;
      }),
    );
  }

  readonly images: ImageAbilities = {
    check: async (volume, repair, context) => {
      const original = this.#store.originalVolume(volume.id);
      const { path } = this.#builder.imageOf(original);
      if (repair) await checkUnused(original, path, "repaired", context);
      return checkImage(this.#builder.opened(original), repair, context);
    },
    measure: async (volume, format, context) => {
      const image = this.#builder.opened(this.#store.originalVolume(volume.id));
      return measureImage(image, formatNamed(format), context);
    },
    convert: (volume, named, context) =>
      this.#store.changeVolume(volume.id, "convert", context, () =>
        this.#store.families.run(volume.id, () => {
          const format = formatNamed(named);
          const preallocation = this.#builder.preallocationOf(volume, format);
          return convertDisk(
            this.#builder,
            this.#store.originalVolume(volume.id),
            { format, preallocation },
            (note) => this.#store.writeVolume(volume, note, context),
            context,
          );
        }),
      ),
    shrink: (volume, sizeBytes, discardData, context) =>
      this.#store.changeVolume(volume.id, "shrink", context, () =>
        this.#store.families.run(volume.id, async () => {
          const original = this.#store.originalVolume(volume.id);
          const note = await shrinkDisk(this.#builder, original, sizeBytes, discardData, context);
          return this.#store.writeVolume({ ...volume, sizeBytes }, note, context);
        }),
      ),
  };

  /** The snapshot's image as a new one, in each of the ways of keeping snapshots: it stays what it is. */
  readonly reverts = {
    volumeRevert: (volume: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#store.revertVolume(volume, context, (folder) =>
        this.#store.families.run(volume.id, () => {
          const sizeBytes = Math.max(volume.sizeBytes, this.#store.noteOf(volume.id).sizeBytes);
          const original = this.#store.originalSnapshot(snapshot.id);
          return this.#builder.copy(original, folder, { ...volume, sizeBytes }, context);
        }),
      ),
    volumeRevertSettle: (id: string, context: OpContext) => this.#store.settleVolume(id, context),
  };

  readonly snapshots = {
    snapshotCreate: (source: VolumeRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#store.makeSnapshot(
        async (folder) => {
          const served = await this.#store.served(source.id, context);
          if (served !== undefined)
            return this.#builder.liveSnapshot(served, folder, snapshot.id, context);
          const original = this.#store.originalVolume(source.id);
          return this.#builder.snapshot(original, folder, snapshot.id, context);
        },
        snapshot,
        context,
      ),
    snapshotRemove: (id: string, context: OpContext) => this.#store.removeSnapshot(id, context),
    snapshotCopy: (source: SnapshotRecord, snapshot: SnapshotRecord, context: OpContext) =>
      this.#store.makeSnapshot(
        async (folder) =>
          this.#builder.snapshot(
            this.#store.originalSnapshot(source.id),
            folder,
            snapshot.id,
            context,
          ),
        snapshot,
        context,
      ),
    volumeCreateFromSnapshot: (source: SnapshotRecord, volume: VolumeRecord, context: OpContext) =>
      this.#store.makeVolume(volume, context, (folder) =>
        this.#store.families.run(source.volumeID, () =>
          this.#builder.copy(this.#store.originalSnapshot(source.id), folder, volume, context),
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
    const isOwn = deviceName.startsWith(`${this.#store.root}/`);
    return deviceName.startsWith("/dev/") && !isOwn ? deviceName.toLowerCase() : "";
  }

  abilities(context: OpContext): Promise<readonly Ability[]> {
    return abilitiesOf(this.#store.root, context);
  }

  async capacity() {
    const { bavail, blocks, bsize } = await statfs(this.#store.root);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  }

  async close(): Promise<void> {
    await this.#store.settled();
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
