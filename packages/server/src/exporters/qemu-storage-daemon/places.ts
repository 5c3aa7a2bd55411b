/** Where the sockets and files of exports stand: in the exporter's own folder, and never in place of another thing. */
import { lstatSync } from "node:fs";
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
 * The place of an export, which is free.
 * @throws {StorageError} `invalid-argument` for one in another folder or, for a socket, too long;
 * `already-exists` when something is there
 */
export function placeOf(
  folder: string,
  name: string,
  { path }: DoorOptions,
  kind: "socket" | "file",
): string {
  const place = path ?? join(folder, name);
  const isInside = dirname(place) === folder && !["", ".", ".."].includes(basename(place));
  if (!isInside)
    throw new StorageError(
      "invalid-argument",
      `${place} is not in the folder of these exports; choose a name in ${folder}, or leave the path out`,
      { path: place, folder },
    );
  if (kind === "socket" && Buffer.byteLength(place) > MAX_SOCKET_BYTES)
    throw new StorageError(
      "invalid-argument",
      `${place} has ${Buffer.byteLength(place)} bytes, and the path of a socket has at most ${MAX_SOCKET_BYTES}; choose a shorter one, or set a shorter "folder"`,
      { path: place },
    );
  if (lstatSync(place, { throwIfNoEntry: false }) !== undefined)
    throw new StorageError(
      "already-exists",
      `${place} is there already, and nothing is exported over it; remove it, or choose another path`,
      { path: place },
    );
  return place;
}
