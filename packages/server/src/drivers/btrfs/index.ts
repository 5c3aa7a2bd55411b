/** btrfs: each volume and each snapshot is a subvolume, with its record beside it. */
import { statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { StorageError } from "@libstorage/model";
import { defineDriver } from "../../core/driver.js";
import type { DriverContext } from "../../core/driver.js";
import { FolderDriver } from "../folders/driver.js";
import { failureOf } from "../folders/failures.js";
import { folderIDs } from "../folders/ids.js";
import { mountOf, readMounts } from "../../core/mounts.js";
import { openRoot } from "../folders/root.js";
import { uuidOf } from "./btrfs.js";
import { BtrfsConfig } from "./config.js";
import { Quota } from "./quota.js";
import { Subvolumes } from "./subvolumes.js";

/** BTRFS_SUPER_MAGIC. @see statfs(2) */
const BTRFS_MAGIC = 0x9123683e;

/** Before anything is made: a root made while the disk is not mounted would be on another file system. */
async function checkBtrfs(root: string): Promise<void> {
  for (let path = root; ; path = dirname(path)) {
    const found = await statfs(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" && path !== "/") return undefined;
      throw failureOf(error, `open ${root}`);
    });
    if (found === undefined) continue;
    if (found.type === BTRFS_MAGIC) return;
    throw new StorageError(
      "failed-precondition",
      `cannot open ${root}: ${path} is not on a btrfs file system; mount it first, or set another root`,
      { path: root },
    );
  }
}

async function openQuota(root: string, wanted: BtrfsConfig["quota"], context: DriverContext) {
  const { mountPoint } = mountOf(readMounts(), root) ?? { mountPoint: root };
  try {
    const quota = await Quota.open(await uuidOf(context, mountPoint), root, wanted, context);
    // Only housekeeping: a file system that is read-only can still be read.
    await quota
      .clearStale(context)
      .catch((error: unknown) => context.log.warn({ error, root }, "stale quota groups remain"));
    return quota;
  } catch (error) {
    throw failureOf(error, `open ${root}`);
  }
}

export const btrfs = defineDriver({
  name: "btrfs",
  config: BtrfsConfig,
  async open({ root: path, quota: wanted }, context) {
    await checkBtrfs(path);
    const root = await openRoot(path, context);
    const quota = await openQuota(root, wanted, context);
    const backing = new Subvolumes(root, quota, context);
    const ids = folderIDs("btrfs");
    return new FolderDriver({ name: "btrfs", type: "nas", ids, root, backing }, context);
  },
});
