/** The device or file that is exported, looked at before anybody is told of it. */
import { stat } from "node:fs/promises";
import { StorageError } from "@libstorage/model";
import type { VolumeRecord } from "../../core/driver.js";

const SECTOR = 512;

export interface CheckedSource {
  readonly kind: "block" | "file";
  readonly path: string;
  /** Of a file, in bytes that can be exported; 0 for a device, which tells its own size. */
  readonly sizeBytes: number;
}

/** @throws {StorageError} `failed-precondition` */
export async function sourceOf({ id, source }: VolumeRecord): Promise<CheckedSource> {
  if (source.kind !== "block" && source.kind !== "file")
    throw refusedSource(id, `is a ${source.kind}, which is no block device`);
  const { kind, path } = source;
  // Neither the kernel's target nor tgtd has a way to quote.
  if (/[,\n]/.test(path))
    throw refusedSource(id, `is at ${path}, and a target takes no comma in a path`);
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw refusedSource(id, `is at ${path}, which cannot be opened (${error.code})`);
  });
  if (kind === "block") {
    if (!found.isBlockDevice()) throw refusedSource(id, `is at ${path}, which is no block device`);
    return { kind, path, sizeBytes: 0 };
  }
  if (source.format !== "raw")
    throw refusedSource(
      id,
      `is a file of the format ${source.format}, and only raw ones can be exported so`,
    );
  if (!found.isFile()) throw refusedSource(id, `is at ${path}, which is no file`);
  return { kind, path, sizeBytes: Math.floor(found.size / SECTOR) * SECTOR };
}

/** @param what completes "volume … cannot be exported: it …" */
export function refusedSource(volumeID: string, what: string): StorageError {
  const text = `volume ${volumeID} cannot be exported: it ${what}`;
  return new StorageError("failed-precondition", text, { volumeID });
}
