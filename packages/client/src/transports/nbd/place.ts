/** Where all that belongs to one export stands on this host. */
import { createHash } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

export interface Place {
  readonly folder: string;
  /** The disk as a file, where a storage daemon shows it by FUSE. */
  readonly disk: string;
  /** Where a storage daemon serves the disk to this host's kernel. */
  readonly socket: string;
  /** The storage daemon's monitor. */
  readonly monitor: string;
}

/** Where the ways of all volumes stand. */
export function nbdFolderOf(libFolder: string): string {
  return join(libFolder, "nbd-client");
}

function placeIn(folder: string): Place {
  return {
    folder,
    disk: join(folder, "disk"),
    socket: join(folder, "nbd.sock"),
    monitor: join(folder, "qmp.sock"),
  };
}

export function placeOfExport(libFolder: string, name: string): Place {
  const part = createHash("sha256").update(name).digest("hex").slice(0, 16);
  return placeIn(join(nbdFolderOf(libFolder), part));
}

export function lockOfExport(libFolder: string, name: string): string {
  return `${placeOfExport(libFolder, name).folder}.lock`;
}

/** The places that are there, whoever made them. */
export async function nbdPlaces(libFolder: string): Promise<readonly Place[]> {
  const names = await readdir(nbdFolderOf(libFolder)).catch(() => []);
  return names
    .filter((name) => /^[\da-f]{16}$/.test(name))
    .map((name) => placeIn(join(nbdFolderOf(libFolder), name)));
}
