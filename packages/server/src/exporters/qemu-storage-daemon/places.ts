/** Where the sockets and files of exports stand: in the exporter's own folder, and never in place of another thing. */
import { lstatSync } from "node:fs";
import type { Stats } from "node:fs";
import { basename, dirname, join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { DoorOptions, ExporterContext } from "../../core/exporter.js";
import { short } from "./layout.js";

/** A path of a Unix socket has at most 107 bytes. @see unix(7) */
const MAX_SOCKET_BYTES = 107;

/** A service's own folder in that of an exporter, made if it is not there. */
export async function folderFor(
  parent: string,
  { service, files }: ExporterContext,
): Promise<string> {
  const folder = join(parent, short(service).slice(0, 8));
  await files.makeFolder(parent);
  await files.makeFolder(folder);
  return folder;
}

/**
 * The place of an export's socket, which is free.
 * @throws {StorageError} `invalid-argument` for one in another folder or too long; `already-exists` when something is
 * there
 */
export function socketPlaceOf(folder: string, name: string, { path }: DoorOptions): string {
  const place = placeIn(folder, name, path);
  if (Buffer.byteLength(place) > MAX_SOCKET_BYTES)
    throw new StorageError(
      "invalid-argument",
      `${place} has ${Buffer.byteLength(place)} bytes, and the path of a socket has at most ${MAX_SOCKET_BYTES}; choose a shorter one, or set a shorter "folder"`,
      { path: place },
    );
  if (statsOf(place) === undefined) return place;
  throw new StorageError(
    "already-exists",
    `${place} is there already; choose another path, or remove it if nothing uses it`,
    { path: place },
  );
}

/** A file over which a volume appears. */
export interface MountPoint {
  readonly path: string;
  /** Whether it was there before, as QEMU demands; then it stays when the export goes. */
  readonly isGiven: boolean;
}

/**
 * The file of an export: free, or empty and of the server's user.
 * @throws {StorageError} `invalid-argument` for one in another folder; `already-exists` when another thing is there
 */
export function mountPointOf(folder: string, name: string, { path }: DoorOptions): MountPoint {
  const place = placeIn(folder, name, path);
  const there = statsOf(place);
  if (there === undefined) return { path: place, isGiven: false };
  const isEmpty = there !== "broken" && there.isFile() && there.size === 0;
  if (isEmpty && there.uid === process.geteuid?.()) return { path: place, isGiven: true };
  throw new StorageError(
    "already-exists",
    `${place} is there already, and ${isEmpty ? "belongs to another user" : "is not an empty file"}; over an empty file of the server's user the volume can appear, so empty it, or choose another path`,
    { path: place },
  );
}

/** Undefined when nothing is there; `broken` for what a daemon that has died was mounted over. */
function statsOf(path: string): Stats | "broken" | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOTCONN") return "broken";
    throw error;
  }
}

/** @throws {StorageError} `invalid-argument` */
function placeIn(folder: string, name: string, path: string | undefined): string {
  const place = path ?? join(folder, name);
  const isInside = dirname(place) === folder && !["", ".", ".."].includes(basename(place));
  if (!isInside)
    throw new StorageError(
      "invalid-argument",
      `${place} is not in the folder of these exports; choose a name in ${folder}, or leave the path out`,
      { path: place, folder },
    );
  return place;
}
