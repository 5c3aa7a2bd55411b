/** Images as streams of bytes: the file itself where it stands alone, otherwise one that is written for it. */
import { constants, createReadStream, statSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { StorageError } from "@libstorage/model";
import type { ContentAbilities, ContentDoor, ContentWish, OpContext } from "../../core/driver.js";
import { layersBelow } from "../../images/layers.js";
import { readQcow2Header } from "../../images/qcow2-header.js";
import { failureOf } from "../folders/failures.js";
import type { ImageNote } from "../folders/records.js";
import { checkUnused } from "./build.js";
import type { ImageBuilder, Original } from "./build.js";
import { diskPath, qemuFormat } from "./layers.js";
import { convertImage } from "./qemu-img.js";
import { withSpool } from "./spool.js";
import type { ImageStore } from "./store.js";

const CHUNK_BYTES = 1024 * 1024;

type Format = "raw" | "qcow2";

const FORMATS: readonly Format[] = ["qcow2", "raw"];

/** Its own where that will do. */
function chosen({ format }: ImageNote, { formats }: ContentWish): Format {
  const own = qemuFormat(format);
  if (formats.length === 0 || formats.includes(own)) return own;
  return FORMATS.find((one) => formats.includes(one)) ?? own;
}

/** Whether the file is the content, without any other file and without anything else in it. */
function standsAlone({ folder, note }: Original): boolean {
  if (note.inner !== undefined) return false;
  if (note.format !== "qcow2") return true;
  const disk = diskPath(folder, "qcow2");
  return layersBelow(disk).length === 0 && readQcow2Header(disk).innerSnapshots === 0;
}

async function sendFile(
  path: string,
  format: Format,
  sizeBytes: number,
  open: ContentDoor,
  { signal }: OpContext,
): Promise<void> {
  const to = open({ format, lengthBytes: statSync(path).size, sizeBytes });
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW;
  const from = createReadStream(path, {
    // Node's types know names of flags only, Node itself numbers too.
    flags: flags as unknown as string,
    highWaterMark: CHUNK_BYTES,
  });
  await pipeline(from, to, { end: false, signal });
}

export function imageContent(store: ImageStore, builder: ImageBuilder): ContentAbilities {
  const send = async (
    original: Original,
    family: string,
    wish: ContentWish,
    open: ContentDoor,
    context: OpContext,
  ): Promise<void> => {
    const { note, folder, what, id } = original;
    if (note.isEncrypted === true)
      throw new StorageError(
        "failed-precondition",
        `${what} ${id} is encrypted with this service's key, and its content is not given away; attach it and copy the data`,
        { resourceID: id },
      );
    const image = builder.opened(original);
    if (what === "volume") await checkUnused(original, image.path, "read", context);
    const format = chosen(note, wish);
    const { sizeBytes } = note;
    if (qemuFormat(note.format) === format && standsAlone(original)) {
      await sendFile(diskPath(folder, note.format), format, sizeBytes, open, context);
      return;
    }
    await withSpool(store.root, context, async (spool) => {
      const to = { path: join(spool, `disk.${format}`), format, sizeBytes };
      // A snapshot inside the file is written by removals of others.
      await store.families.run(family, () =>
        convertImage({ from: image, inner: note.inner, to }, context),
      );
      await sendFile(to.path, format, sizeBytes, open, context);
    });
  };
  const explained = async (doing: string, act: () => Promise<void>): Promise<void> => {
    try {
      await act();
    } catch (error) {
      throw failureOf(error, doing);
    }
  };
  return {
    formats: ["qcow2", "raw"],
    canReadHeld: false,
    volumeContent: ({ id }, wish, open, context) =>
      explained(`read volume ${id}`, () => send(store.originalVolume(id), id, wish, open, context)),
    snapshotContent: ({ id, volumeID }, wish, open, context) =>
      explained(`read snapshot ${id}`, () =>
        send(store.originalSnapshot(id), volumeID, wish, open, context),
      ),
    volumeCreateFrom: (volume, content, context) =>
      store.makeVolume(volume, context, (folder) =>
        builder.receive(folder, volume, content, context),
      ),
  };
}
