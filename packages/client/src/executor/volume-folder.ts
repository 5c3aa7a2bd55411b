/** The folder of a vfs or btrfs volume on this host, and the record beside it that says which volume it is. */
import * as fs from "node:fs/promises";
import { isAbsolute, normalize } from "node:path";
import { StorageError } from "@libstorage/model";

function wrongFolder(volumeID: string, folder: string, why: string): StorageError {
  return new StorageError(
    "failed-precondition",
    `${folder} is not mounted: ${why}, so it may not be volume ${volumeID}`,
    { volumeID, device: folder },
  );
}

/**
 * Makes sure that a folder is the data of a volume: the record `<folder>.json` names it.
 * @throws {StorageError} `failed-precondition`, `permission-denied`
 */
export async function checkVolumeFolder(volumeID: string, folder: string): Promise<void> {
  if (!isAbsolute(folder) || normalize(folder) !== folder || folder.includes("\0"))
    throw wrongFolder(volumeID, folder, "it is no plain absolute path");
  const record = `${folder}.json`;
  // Both are looked at in one turn.
  const reading = fs.readFile(record, "utf8");
  reading.catch(() => {});
  const found = await fs.lstat(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "EACCES")
      throw new StorageError("permission-denied", `this user may not look at ${folder}`, {
        device: folder,
      });
    return undefined;
  });
  if (found === undefined)
    throw new StorageError(
      "failed-precondition",
      `volume ${volumeID} is the folder ${folder} of the server's host, which this host does not have: its driver cannot carry a volume to another host; mount it there, or use a driver that exports volumes`,
      { volumeID, device: folder },
    );
  if (!found.isDirectory()) throw wrongFolder(volumeID, folder, "it is not a folder");
  const text = await reading.catch((error: NodeJS.ErrnoException) => {
    if (error.code === "EACCES")
      throw new StorageError(
        "permission-denied",
        `this user may not read ${record}, which says whose folder ${folder} is`,
        { device: folder },
      );
    throw wrongFolder(volumeID, folder, `its record ${record} cannot be read (${error.code})`);
  });
  if (idOf(text) !== volumeID)
    throw wrongFolder(volumeID, folder, `its record ${record} does not name that volume`);
}

function idOf(text: string): unknown {
  try {
    const record: unknown = JSON.parse(text);
    return typeof record === "object" && record !== null && "id" in record ? record.id : undefined;
  } catch {
    return undefined;
  }
}
