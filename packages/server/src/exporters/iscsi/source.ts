/** The device or file that is exported, looked at before anybody is told of it. */
import { readFile, readdir, realpath, stat } from "node:fs/promises";
import { basename } from "node:path";
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

/** What uses a block device on this host, in words that follow a colon; undefined when nothing seems to. */
export async function usedBy(path: string): Promise<string | undefined> {
  const device = await realpath(path).catch(() => path);
  const mounts = await readFile("/proc/mounts", "utf8").catch(() => "");
  for (const line of mounts.split("\n")) {
    const [from = "", at] = line.split(" ");
    if (from.startsWith("/") && (await realpath(from).catch(() => from)) === device)
      return `it is mounted at ${at}`;
  }
  const holders = await readdir(`/sys/class/block/${basename(device)}/holders`).catch(() => []);
  return holders.length > 0 ? `${holders.join(", ")} stands on it` : undefined;
}
