/**
 * The files of one volume or snapshot, in a folder of their own: `disk.FORMAT`, which is what is used, and
 * below it layers `N.FORMAT`, each the backing file of the next. Layers are never written again, so folders
 * share them by hard links: the file system counts who still needs one.
 */
import { lstatSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import type { LiveImage } from "../../core/live-image.js";
import type { ImageNote } from "../folders/records.js";
import { orUndo } from "../folders/steps.js";
import { createImage } from "./qemu-img.js";
import { LAYER, layersBelow } from "../../images/layers.js";
import { readQcow2Header } from "../../images/qcow2-header.js";

const DEFERRED = { isSyncDeferred: true };

/** Long chains are slow to open, and read through every layer. */
const MAX_LAYERS = 200;

export type Format = ImageNote["format"];

/** What the disk of a qcow2 has, in bytes, as its header says. @throws {Error} for what is no qcow2 */
export function sizeOfQcow2(path: string): number {
  return Number(readQcow2Header(path).sizeBytes);
}

/** Where a format's file lies in its folder. */
export function diskPath(folder: string, format: Format): string {
  return join(folder, `disk.${format}`);
}

/** What QEMU calls it: the bytes of an ISO file are a raw disk's. */
export function qemuFormat(format: Format): "raw" | "qcow2" {
  return format === "qcow2" ? "qcow2" : "raw";
}

/** Why a folder is not an image's, or undefined. */
export function flawOfFolder(folder: string): string | undefined {
  const kinds = (["raw", "qcow2", "iso"] as const).map((format) =>
    lstatSync(diskPath(folder, format), { throwIfNoEntry: false }),
  );
  const found = kinds.filter((stats) => stats !== undefined);
  if (found.length === 0) return `${folder} has no image disk.raw, disk.qcow2 or disk.iso`;
  if (!found.every((stats) => stats.isFile())) return `the image in ${folder} is not a plain file`;
  return undefined;
}

/**
 * Freezes the present content of a disk as a layer, and lays a new, empty overlay over it.
 * @param live who has the disk open. The names are changed first: should it end before it has heard of the new overlay,
 * the next one opens what it has written, with an empty layer over it
 */
export async function freeze(disk: string, context: OpContext, live?: LiveImage): Promise<void> {
  const { files } = context;
  const folder = dirname(disk);
  const [top] = layersBelow(disk);
  const depth = top === undefined ? 0 : Number(LAYER.exec(basename(top))?.[1] ?? 0);
  if (depth >= MAX_LAYERS)
    throw new StorageError(
      "failed-precondition",
      `the image ${disk} lies on ${depth} layers already; convert it to qcow2, which makes it one file again`,
      { path: disk },
    );
  const name = `${depth + 1}.qcow2`;
  const layer = join(folder, name);
  const overlay = join(folder, NEXT);
  await files.unlink(overlay, DEFERRED);
  // One that was cut short has left the name of what is still in use.
  await files.unlink(layer, DEFERRED);
  const backing = { name, format: "qcow2" } as const;
  const sizeBytes = sizeOfQcow2(disk);
  const wanted = { path: overlay, format: "qcow2", sizeBytes, backing } as const;
  await orUndo(
    async () => {
      await files.hardLink(disk, layer, DEFERRED);
      await createImage(wanted, context);
      await files.syncFile(overlay);
      await files.rename(overlay, disk);
    },
    (own) => forgetLayer(disk, layer, overlay, own),
    context,
  );
  await live?.layOver(disk).catch(async (error: unknown) => {
    if (isKnownFailure(error)) await unfreeze(disk, layer, context);
    throw error;
  });
}

const NEXT = "next.qcow2";

/** Takes back a layer that did not come to lie below its disk. */
async function forgetLayer(
  disk: string,
  layer: string,
  overlay: string,
  { files }: OpContext,
): Promise<void> {
  await files.unlink(overlay, DEFERRED);
  if (lstatSync(layer, { throwIfNoEntry: false })?.ino === lstatSync(disk).ino)
    await files.unlink(layer, DEFERRED);
}

/** Whether it is known that nothing has changed. */
function isKnownFailure(error: unknown): boolean {
  const code = error instanceof StorageError ? error.code : "internal";
  return code !== "unavailable" && code !== "deadline-exceeded";
}

/** The layer is the disk again; the overlay has stayed empty. */
async function unfreeze(disk: string, layer: string, context: OpContext): Promise<void> {
  const { files } = context;
  const next = join(dirname(disk), NEXT);
  await files.unlink(next, DEFERRED);
  await files.hardLink(layer, next, DEFERRED);
  await files.rename(next, disk);
  await files.unlink(layer);
}

/** Gives a folder the layers below a disk. */
export async function linkLayers(
  disk: string,
  folder: string,
  context: OpContext,
): Promise<string[]> {
  const layers = layersBelow(disk);
  for (const layer of layers)
    await context.files.hardLink(layer, join(folder, basename(layer)), DEFERRED);
  return layers;
}

/**
 * Lays a new overlay in `folder` over the layers of a disk that was just frozen.
 * @returns its size, in bytes: that of what was frozen
 */
export async function overlayOf(disk: string, folder: string, context: OpContext): Promise<number> {
  const [top] = await linkLayers(disk, folder, context);
  if (top === undefined)
    throw new StorageError("internal", `${disk} has no layer to share`, { path: disk });
  const path = diskPath(folder, "qcow2");
  const backing = { name: basename(top), format: "qcow2" } as const;
  const sizeBytes = sizeOfQcow2(top);
  await createImage({ path, format: "qcow2", sizeBytes, backing }, context);
  await context.files.syncFile(path);
  return sizeBytes;
}

/** Copies a disk as a file, sharing its layers. Blocks are shared where the file system can. */
export async function copyDisk(
  disk: string,
  folder: string,
  context: OpContext,
  copy: (from: string, to: string, context: OpContext) => Promise<void>,
): Promise<void> {
  await linkLayers(disk, folder, context);
  const to = join(folder, basename(disk));
  await copy(disk, to, context);
  await context.files.syncFile(to);
}
