/** How the image of a new volume or snapshot comes into its folder. */
import { StorageError, parseSize } from "@libstorage/model";
import { join } from "node:path";
import type { ContentIn, OpContext, VolumeRecord } from "../../core/driver.js";
import type { LiveImage } from "../../core/live-image.js";
import type { ImageNote } from "../folders/records.js";
import { copyTree } from "../folders/cp.js";
import type { ImageConfig } from "./config.js";
import {
  copyDisk,
  diskPath,
  freeze,
  linkLayers,
  overlayOf,
  qemuFormat,
  sizeOfQcow2,
} from "./layers.js";
import type { Format } from "./layers.js";
import { layersBelow } from "../../images/layers.js";
import {
  convertImage,
  createImage,
  createInner,
  inspectImage,
  removeInner,
  resizeImage,
} from "./qemu-img.js";
import type { Image, Preallocation } from "./qemu-img.js";
import { importOf, needSound, openImport, sizeOf } from "./import.js";
import type { Import } from "./import.js";
import { userOf } from "./in-use.js";
import { readQcow2Header } from "../../images/qcow2-header.js";

/** What there is to copy. */
export interface Original {
  readonly what: "volume" | "snapshot";
  readonly id: string;
  readonly folder: string;
  readonly note: ImageNote;
}

/** A volume that is exported: whoever has it open changes its image. */
export interface Served extends Original {
  readonly live: LiveImage;
  /** Who may write to it meanwhile. */
  readonly holder: string;
}

/** How a volume's options spell what the service's keys say for all. */
const FORMAT = "format";
const PREALLOCATION = "preallocation";

const PREALLOCATIONS: readonly string[] = ["off", "metadata", "falloc", "full"];

export class ImageBuilder {
  readonly #root: string;
  readonly #config: ImageConfig;

  constructor(root: string, config: ImageConfig) {
    this.#root = root;
    this.#config = config;
  }

  /** The passphrase's file for an encrypted volume. @throws {StorageError} when there is none */
  keyFileFor(isEncrypted: boolean): string | undefined {
    if (!isEncrypted) return undefined;
    const { encryptionKeyFile } = this.#config;
    if (encryptionKeyFile !== undefined) return encryptionKeyFile;
    throw new StorageError(
      "failed-precondition",
      'the service has no key for encrypted volumes; set "encryptionKeyFile" for it',
    );
  }

  /** An image that is there. @throws {StorageError} when its header names files that are not its own */
  opened(original: Pick<Original, "folder" | "note">): Image {
    const image = this.imageOf(original);
    layersBelow(image.path);
    return image;
  }

  imageOf({ folder, note }: Pick<Original, "folder" | "note">): Image {
    const keyFile = this.keyFileFor(note.isEncrypted === true);
    return { path: diskPath(folder, note.format), format: qemuFormat(note.format), keyFile };
  }

  /** An empty disk, or one with the content of a file from outside. */
  async make(folder: string, volume: VolumeRecord, context: OpContext): Promise<ImageNote> {
    const wanted = importOf(volume);
    if (wanted !== undefined) return this.#import(wanted, folder, volume, context);
    const format = this.#formatOf(volume);
    const path = diskPath(folder, format);
    const preallocation = this.preallocationOf(volume, format);
    const keyFile = this.keyFileFor(volume.encrypted);
    const { sizeBytes } = volume;
    await createImage({ path, format, keyFile, sizeBytes, preallocation }, context);
    await context.files.syncFile(path);
    return { format, sizeBytes, ...(volume.encrypted && { isEncrypted: true }) };
  }

  /** The result is of this server's making: nothing but bytes comes over. */
  async #import(
    wanted: Import,
    folder: string,
    volume: VolumeRecord,
    context: OpContext,
  ): Promise<ImageNote> {
    const maxBytes = parseSize(this.#config.maxImportSize) ?? 0;
    const original = await openImport(wanted, { root: this.#root, folder, maxBytes }, context);
    if (wanted.format === "iso" && volume.encrypted)
      throw new StorageError("invalid-argument", "an ISO file is kept as it is, so not encrypted");
    if (wanted.format === "iso" && (volume.fields[PREALLOCATION] ?? "off") !== "off")
      throw new StorageError(
        "invalid-argument",
        "an ISO file is kept as it is, so not preallocated",
      );
    const format: Format = wanted.format === "iso" ? "iso" : this.#formatOf(volume);
    const isLarger = wanted.format !== "iso" && volume.sizeBytes > original.sizeBytes;
    const sizeBytes = isLarger ? volume.sizeBytes : original.sizeBytes;
    const note = { format, sizeBytes, ...(volume.encrypted && { isEncrypted: true }) };
    const preallocation = this.preallocationOf(volume, format);
    const to = { ...this.imageOf({ folder, note }), sizeBytes, preallocation };
    await needSound(original.image, wanted.name, context);
    await convertImage({ from: original.image, to, isForeign: true }, context);
    await context.files.unlink(original.image.path, { isSyncDeferred: true });
    await context.files.syncFile(to.path);
    return note;
  }

  /** A disk with the content of a stream, which is looked at like a file from outside. */
  async receive(
    folder: string,
    volume: VolumeRecord,
    { format, bytes, isSizeGiven }: ContentIn,
    context: OpContext,
  ): Promise<ImageNote> {
    const maxBytes = parseSize(this.#config.maxImportSize) ?? 0;
    const own = this.#formatOf(volume);
    const preallocation = this.preallocationOf(volume, own);
    // Zeros that come are holes in what is taken as it comes.
    const isSparse = preallocation === "off";
    const isTaken = format === "raw" && own === "raw" && !volume.encrypted && isSparse;
    const path = isTaken ? diskPath(folder, "raw") : join(folder, "import");
    const { files } = context;
    const least = isSizeGiven ? volume.sizeBytes : 0;
    await files.createFrom(path, bytes, { mostBytes: maxBytes, least: isTaken ? least : 0 });
    const from = format === "qcow2" ? "qcow2" : "raw";
    const contentBytes = sizeOf(path, "the content", from, maxBytes);
    if (isSizeGiven && contentBytes > volume.sizeBytes)
      throw new StorageError(
        "invalid-argument",
        `the content is a disk of ${contentBytes} bytes, and the volume would have ${volume.sizeBytes}; ask for a larger one`,
        { contentBytes, sizeBytes: volume.sizeBytes },
      );
    const sizeBytes = isSizeGiven ? volume.sizeBytes : contentBytes;
    const note = { format: own, sizeBytes, ...(volume.encrypted && { isEncrypted: true }) };
    const to = { ...this.imageOf({ folder, note }), sizeBytes, preallocation };
    if (!isTaken) {
      const image = { path, format: from } as const;
      await needSound(image, "the content", context);
      await convertImage({ from: image, to, isForeign: true }, context);
      await files.unlink(path, { isSyncDeferred: true });
    }
    await files.syncFile(to.path);
    return note;
  }

  #formatOf({ fields }: VolumeRecord): "raw" | "qcow2" {
    const format = fields[FORMAT] ?? this.#config.format;
    if (format === "raw" || format === "qcow2") return format;
    throw new StorageError(
      "invalid-argument",
      `a new volume cannot have the format ${JSON.stringify(format)}: it is raw or qcow2, and an ISO file is imported`,
      { format },
    );
  }

  /** What an image that is written for the volume takes at once. @throws {StorageError} `invalid-argument` */
  preallocationOf({ fields }: VolumeRecord, format: Format): Preallocation {
    const asked = fields[PREALLOCATION] ?? this.#config.preallocation;
    if (!PREALLOCATIONS.includes(asked))
      throw new StorageError(
        "invalid-argument",
        `the preallocation ${JSON.stringify(asked)} is not known: it is ${PREALLOCATIONS.join(", ")}`,
        { preallocation: asked },
      );
    // A raw file has no tables, and an ISO file is never written to.
    if (format === "iso" || (asked === "metadata" && format === "raw")) return "off";
    return asked as Preallocation;
  }

  /** A volume with the content of another, or of a snapshot. */
  async copy(
    from: Original,
    folder: string,
    volume: VolumeRecord,
    context: OpContext,
  ): Promise<ImageNote> {
    this.#checkCopy(from, volume);
    const preallocation = this.preallocationOf(volume, from.note.format);
    // What is shared with another volume, or a hole, is not taken yet, so such a copy is written whole.
    const mode = preallocation === "off" ? this.#config.copies : { preallocation };
    const note = await this.#duplicate(from, folder, mode, context);
    if (volume.sizeBytes <= note.sizeBytes) return note;
    const grown = { ...note, sizeBytes: volume.sizeBytes };
    const image = this.opened({ folder, note: grown });
    await resizeImage(image, volume.sizeBytes, { preallocation }, context);
    await context.files.syncFile(image.path);
    return grown;
  }

  #checkCopy(from: Original, { id, encrypted, sizeBytes }: VolumeRecord): void {
    if (encrypted && from.note.isEncrypted !== true)
      throw new StorageError(
        "invalid-argument",
        `${from.what} ${from.id} is not encrypted, so a copy of it cannot be; create an encrypted volume and copy the data into it`,
        { resourceID: from.id },
      );
    if (sizeBytes < from.note.sizeBytes)
      throw new StorageError(
        "invalid-argument",
        `volume ${id} would have ${sizeBytes} bytes, and its source ${from.id} has ${from.note.sizeBytes}`,
        { resourceID: from.id, sizeBytes: from.note.sizeBytes },
      );
  }

  async snapshot(
    from: Original,
    folder: string,
    snapshotID: string,
    context: OpContext,
  ): Promise<ImageNote> {
    const mode = this.#config.snapshots;
    if (mode === "inner" && from.note.format === "qcow2" && from.what === "volume") {
      const kept = await this.#inner(from, folder, snapshotID, context);
      if (kept !== undefined) return kept;
    }
    return this.#duplicate(from, folder, mode === "inner" ? "files" : mode, context);
  }

  /**
   * A snapshot while it is written. One that cannot be made inside the image, because there are several ways to it,
   * is made as a layer.
   */
  async liveSnapshot(
    from: Served,
    folder: string,
    snapshotID: string,
    context: OpContext,
  ): Promise<ImageNote> {
    const { snapshots } = this.#config;
    const { live, note } = from;
    if (note.format === "qcow2" && snapshots === "inner") {
      const kept = await this.#inner(from, folder, snapshotID, context, live);
      if (kept !== undefined) return kept;
    }
    const why = whyNotLayered(from, snapshots);
    if (why !== undefined)
      throw new StorageError(
        "failed-precondition",
        `volume ${from.id} cannot be snapshotted while it is exported to ${from.holder}: ${why}`,
        { volumeID: from.id, holder: from.holder },
      );
    const disk = this.opened(from).path;
    // An exchange that was cut short is done again: until then the file is not what is written.
    await live.sizeBytes();
    await freeze(disk, context, live);
    return { ...note, sizeBytes: await overlayOf(disk, folder, context) };
  }

  async #duplicate(
    from: Original,
    folder: string,
    mode: "files" | "overlays" | { readonly preallocation: Preallocation },
    context: OpContext,
  ): Promise<ImageNote> {
    const { inner, ...note } = from.note;
    const { format, sizeBytes, isEncrypted = false } = note;
    const disk = diskPath(from.folder, format);
    // What an inner snapshot holds is never written again, whoever has the file open.
    if (inner === undefined) await checkUnused(from, disk, "copied", context);
    // Inner snapshots are no part of a copy, and their clusters would be.
    const hasInner = format === "qcow2" && readQcow2Header(disk).innerSnapshots > 0;
    const preallocation = typeof mode === "object" ? mode.preallocation : "off";
    if (inner !== undefined || hasInner || preallocation !== "off") {
      const to = { ...this.imageOf({ folder, note }), preallocation };
      const image = this.opened(from);
      // Even of an inner snapshot qemu-img writes as many bytes as the image has today.
      const bytesToday = format === "qcow2" ? Math.max(sizeBytes, sizeOfQcow2(disk)) : sizeBytes;
      await convertImage({ from: image, inner, to: { ...to, sizeBytes: bytesToday } }, context);
      if (bytesToday > sizeBytes) await resizeImage(to, sizeBytes, { shrink: true }, context);
      await context.files.syncFile(to.path);
    } else if (mode === "overlays" && format === "qcow2" && !isEncrypted) {
      // A snapshot is never written: what lies in it is a layer already, under another name.
      await freeze(disk, context);
      await overlayOf(disk, folder, context);
    } else await copyDisk(disk, folder, context, copyTree);
    return note;
  }

  /**
   * The snapshot's folder has a name of the volume's file of its own, so that it outlives the volume.
   * @returns undefined, with nothing done, when who has the image open cannot make it
   */
  async #inner(
    from: Original,
    folder: string,
    snapshotID: string,
    context: OpContext,
    live?: LiveImage,
  ): Promise<ImageNote | undefined> {
    const image = this.opened(from);
    let { sizeBytes } = from.note;
    if (live !== undefined) {
      sizeBytes = await live.sizeBytes();
      if (!(await live.keep(snapshotID))) return undefined;
      // It may have grown up to that moment; what came to it later is read as zeros.
      sizeBytes = Math.max(sizeBytes, await live.sizeBytes());
    } else {
      await checkUnused(from, image.path, "snapshotted", context);
      const { inner } = await inspectImage(image, context);
      if (!inner.includes(snapshotID)) await createInner(image, snapshotID, context);
    }
    await context.files.syncFile(image.path);
    await context.files.hardLink(image.path, diskPath(folder, "qcow2"), { isSyncDeferred: true });
    await linkLayers(image.path, folder, context);
    return { ...from.note, sizeBytes, inner: snapshotID };
  }

  /** Takes an inner snapshot out of a qcow2. One that is not there is fine. */
  async removeInner(folder: string, snapshotID: string, isEncrypted: boolean, context: OpContext) {
    const image = this.opened({ folder, note: { format: "qcow2", sizeBytes: 0, isEncrypted } });
    const { inner } = await inspectImage(image, context);
    if (!inner.includes(snapshotID)) return;
    await removeInner(image, snapshotID, context);
    await context.files.syncFile(image.path);
  }
}

/** @throws {StorageError} `failed-precondition`: the copy of what is written meanwhile would be torn */
export async function checkUnused(
  { what, id }: Pick<Original, "what" | "id">,
  path: string,
  doing: string,
  context: OpContext,
): Promise<void> {
  const user = await userOf(path, context);
  if (user === undefined) return;
  throw new StorageError(
    "failed-precondition",
    `${what} ${id} cannot be ${doing}: ${user} has its image open for writing; detach it there and try again`,
    { resourceID: id, path, user },
  );
}

/** Why the present content of a volume that is written cannot become a layer; undefined when it can. */
function whyNotLayered(
  { folder, note }: Original,
  snapshots: ImageConfig["snapshots"],
): string | undefined {
  const { format, isEncrypted = false } = note;
  const torn = "is copied as a file, and the copy would be of no one moment";
  const detach = "detach it there and try again";
  if (format !== "qcow2") return `a volume of the format ${format} ${torn}; ${detach}`;
  if (isEncrypted)
    return snapshots === "inner"
      ? `it is encrypted and has several exports; remove all but one, and try again`
      : `an encrypted volume ${torn}; ${detach}, or set the service's key "snapshots" to inner`;
  if (snapshots === "files")
    return `in this service a volume ${torn}; ${detach}, or set the service's key "snapshots" to overlays or inner`;
  const { innerSnapshots } = readQcow2Header(diskPath(folder, "qcow2"));
  if (innerSnapshots > 0 && snapshots !== "inner")
    return `it has snapshots inside its image, which are no part of others; ${detach}`;
  return undefined;
}
