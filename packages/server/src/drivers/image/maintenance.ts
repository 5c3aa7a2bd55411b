/** Work on the image of a volume that nobody uses. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { StorageError, formatSize } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import type { ImageNote } from "../folders/records.js";
import { checkUnused } from "./build.js";
import type { ImageBuilder, Original } from "./build.js";
import { diskPath } from "./layers.js";
import { convertImage, dataBehind, resizeImage } from "./qemu-img.js";
import type { NewImage } from "./qemu-img.js";

const DEFERRED = { isSyncDeferred: true };

/** @throws {StorageError} `invalid-argument` for what an image cannot be written as */
export function formatNamed(format: string): "raw" | "qcow2" {
  if (format === "raw" || format === "qcow2") return format;
  throw new StorageError(
    "invalid-argument",
    `an image cannot be written as ${JSON.stringify(format)}: it can be raw or qcow2`,
    { format },
  );
}

/**
 * Writes the image anew beside the present one, which stays what the record names until `commit` has written
 * the record. One file is left: layers and other formats go.
 */
export async function convertDisk<R>(
  builder: ImageBuilder,
  original: Original,
  wanted: Pick<NewImage, "format" | "preallocation">,
  commit: (note: ImageNote) => Promise<R>,
  context: OpContext,
): Promise<R> {
  const { files } = context;
  const { folder, note: before, id } = original;
  const { format } = wanted;
  const from = builder.opened(original);
  await checkUnused(original, from.path, "converted", context);
  if (before.format === "iso")
    throw new StorageError("failed-precondition", `volume ${id} is an ISO file, and stays one`);
  const note = { ...before, format };
  const next = join(folder, `next.${format}`);
  await files.unlink(next, DEFERRED);
  try {
    const { keyFile } = builder.imageOf({ folder, note });
    const to = { ...wanted, keyFile, path: next, sizeBytes: note.sizeBytes };
    await convertImage({ from, to }, context);
    await files.syncFile(next);
  } catch (error) {
    // With its own time: the operation's may be what has ended.
    await files.unlink(next).catch(() => {});
    throw error;
  }
  const disk = diskPath(folder, format);
  await files.rename(next, disk);
  const done = await commit(note);
  for (const name of readdirSync(folder))
    if (join(folder, name) !== disk) await files.unlink(join(folder, name), DEFERRED);
  await files.syncFolder(folder);
  return done;
}

/** @throws {StorageError} `failed-precondition` for data behind the new end that may not be discarded */
export async function shrinkDisk(
  builder: ImageBuilder,
  original: Original,
  sizeBytes: number,
  discardData: boolean,
  context: OpContext,
): Promise<ImageNote> {
  const { note, id } = original;
  const image = builder.opened(original);
  await checkUnused(original, image.path, "shrunk", context);
  if (note.format === "iso")
    throw new StorageError(
      "failed-precondition",
      `volume ${id} is an ISO file, which has one size`,
    );
  const first = discardData ? undefined : await dataBehind(image, sizeBytes, context);
  if (first !== undefined)
    throw new StorageError(
      "failed-precondition",
      `volume ${id} has data at ${formatSize(first)}, behind the new end at ${formatSize(sizeBytes)}; make its file system smaller first, or shrink with discardData`,
      { volumeID: id, dataAtBytes: first },
    );
  await resizeImage(image, sizeBytes, { shrink: true }, context);
  await context.files.syncFile(image.path);
  return { ...note, sizeBytes };
}
