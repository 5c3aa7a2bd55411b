/** The folder inside a mounted volume that is handed out. */
import { lstatSync } from "node:fs";
import { lstat, mkdir } from "node:fs/promises";
import { join, normalize } from "node:path";
import { StorageError } from "@libstorage/model";
import { mountsAt, readMountTable } from "../executor/mount-table.js";
import type { OperationSettings } from "./operation-settings.js";

/** The path that is handed out for a mount point. */
export function rootPathOf(mountPoint: string, { rootPath }: OperationSettings["mount"]): string {
  // A path that climbs is cut at the mount point.
  return join(mountPoint, normalize(`/${rootPath}`)).replace(/(.)\/$/, "$1");
}

/** Makes it if it is not there. @throws {StorageError} `failed-precondition` when something else is */
export async function makeRootFolder(
  mountPoint: string,
  settings: OperationSettings["mount"],
): Promise<string> {
  const path = rootPathOf(mountPoint, settings);
  if (path === mountPoint) return path;
  // Parts of the path are made one by one, so that no link in the volume leads out of it.
  let at = mountPoint;
  for (const part of path.slice(mountPoint.length).split("/").filter(Boolean)) {
    at = join(at, part);
    // It is there but the first time.
    const found =
      (await lstat(at).catch(() => undefined)) ??
      (await mkdir(at, { mode: settings.fileMode })
        .catch((error: NodeJS.ErrnoException) => {
          if (error.code !== "EEXIST" && error.code !== "EROFS") throw error;
        })
        .then(() => lstat(at).catch(() => undefined)));
    if (found?.isDirectory() !== true)
      throw new StorageError(
        "failed-precondition",
        `${at} should be the volume's root folder and is not a folder; set linux.volume.rootpath or remove it`,
        { path: at },
      );
  }
  return path;
}

/** Whether anything is there, a link to nowhere included. A mount is not looked at: it may not answer. */
export async function isThere(path: string): Promise<boolean> {
  if (mountsAt(await readMountTable(), path).length > 0) return true;
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    // Below a file there is nothing; whoever makes a folder there says so.
    if ((error as NodeJS.ErrnoException).code === "ENOTDIR") return false;
    throw error;
  }
}
