/** What there is at a path in a location: type, size, and the space around it. */
import { readFile, statfs } from "node:fs/promises";
import {
  StorageError,
  VIR_STORAGE_STAT_BUFFER_TYPE_BLOCK,
  VIR_STORAGE_STAT_BUFFER_TYPE_DIR,
  VIR_STORAGE_STAT_BUFFER_TYPE_FILE,
} from "@libstorage/model";
import type { StorageStat, StorageStatVFS } from "@libstorage/model";
import type { Locations } from "./locations.js";
import { openFile, openFileOrFolder } from "./place.js";

/** The kernel counts a device in these, whatever its own blocks are. */
const SECTOR = 512;

/** A device's number, as `st_rdev` holds it: see makedev(3). */
function numbersOf(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
  return `${major}:${minor}`;
}

/** A block device's `st_size` is 0; the kernel tells its size without opening it. */
async function sizeOfDevice(rdev: bigint): Promise<number> {
  const text = await readFile(`/sys/dev/block/${numbersOf(rdev)}/size`, "utf8");
  return Number(text.trim()) * SECTOR;
}

/**
 * @returns null when there is no such file
 * @throws {StorageError} `permission-denied` outside the locations; `failed-precondition` for what holds no data
 */
export async function statOf(path: string, locations: Locations): Promise<StorageStat | null> {
  const handle = await openFile(path, locations);
  if (handle === undefined) return null;
  try {
    const there = await handle.stat({ bigint: true });
    if (there.isFile())
      return { type: VIR_STORAGE_STAT_BUFFER_TYPE_FILE, size: Number(there.size) };
    if (there.isDirectory())
      return { type: VIR_STORAGE_STAT_BUFFER_TYPE_DIR, size: Number(there.size) };
    if (there.isBlockDevice()) {
      const size = await sizeOfDevice(there.rdev);
      return { type: VIR_STORAGE_STAT_BUFFER_TYPE_BLOCK, size };
    }
    throw new StorageError(
      "failed-precondition",
      `${path} is neither a file nor a folder nor a block device`,
      { path },
    );
  } finally {
    await handle.close();
  }
}

/**
 * The file system of a file in a location, or of a location's folder.
 * @param path with or without a slash at its end: the proposal says to cut after the last one
 * @throws {StorageError} `not-found` when there is nothing
 */
export async function statVFSOf(path: string, locations: Locations): Promise<StorageStatVFS> {
  const plain = path.replace(/(?<=.)\/$/, "");
  const handle = await openFileOrFolder(plain, locations);
  if (handle === undefined)
    throw new StorageError(
      "not-found",
      `${path} does not exist; ask about its folder for the space that a new file could take`,
      { path },
    );
  try {
    const { bsize, bavail } = await statfs(`/proc/self/fd/${handle.fd}`);
    return { bsize, bavail };
  } finally {
    await handle.close();
  }
}
