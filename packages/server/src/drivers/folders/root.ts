/** The root of a service: a folder with `vol` and `snap` in it. */
import { mkdir, realpath } from "node:fs/promises";
import type { DriverContext } from "../../core/driver.js";
import { failureOf } from "./failures.js";
import { openSnapshotShelf, openVolumeShelf } from "./shelves.js";

/** Makes the root and its two folders where they are missing. @returns the root without links */
export async function openRoot(path: string, context: DriverContext): Promise<string> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    const root = await realpath(path);
    for (const shelf of [openVolumeShelf(root), openSnapshotShelf(root)]) {
      // Not made blindly: on a read-only file system folders that are there can still be read.
      if (!shelf.isThere) await context.files.makeFolder(shelf.folder);
      shelf.check();
    }
    return root;
  } catch (error) {
    throw failureOf(error, `open ${path}`);
  }
}
