/** vfs: each volume is a folder that holds its data, with its record beside it. */
import { mkdir, realpath } from "node:fs/promises";
import { join } from "node:path";
import { defineDriver } from "../../core/driver.js";
import type { DriverContext } from "../../core/driver.js";
import { VfsConfig } from "./config.js";
import { VfsDriver } from "./driver.js";
import { failureOf } from "./failures.js";
import { readMounts } from "./mounts.js";
import { findQuota, requireQuota } from "./quota.js";
import { openSnapshotShelf, openVolumeShelf } from "./shelves.js";

/** Makes the root and its two folders where they are missing. @returns the root without links */
async function openRoot(path: string, context: DriverContext): Promise<string> {
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

export const vfs = defineDriver({
  name: "vfs",
  config: VfsConfig,
  async open({ root: path, quota: mode }, context) {
    const root = await openRoot(path ?? join(context.libFolder, "vfs"), context);
    if (mode === "off")
      return new VfsDriver(root, { quota: undefined, detail: "switched off" }, context);
    const finding = await findQuota(root, readMounts(), context);
    if (mode === "require") requireQuota(finding);
    return new VfsDriver(root, finding, context);
  },
});
