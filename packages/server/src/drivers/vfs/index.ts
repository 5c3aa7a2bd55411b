/** vfs: each volume is a folder that holds its data, with its record beside it. */
import { join } from "node:path";
import { defineDriver } from "../../core/driver.js";
import type { DriverContext } from "../../core/driver.js";
import { FolderDriver } from "../folders/driver.js";
import { readMounts } from "../../core/mounts.js";
import { openRoot } from "../folders/root.js";
import { PlainFolders } from "./backing.js";
import { VfsConfig } from "./config.js";
import { VFS_IDS } from "./ids.js";
import { findQuota, requireQuota } from "./quota.js";
import type { QuotaFinding } from "./quota.js";

async function quotaOf(root: string, mode: VfsConfig["quota"], context: DriverContext) {
  if (mode === "off") return { quota: undefined, detail: "switched off" } satisfies QuotaFinding;
  const finding = await findQuota(root, readMounts(), context);
  if (mode === "require") requireQuota(finding);
  return finding;
}

export const vfs = defineDriver({
  name: "vfs",
  config: VfsConfig,
  async open({ root: path, quota: mode }, context) {
    const root = await openRoot(path ?? join(context.libFolder, "vfs"), context);
    const backing = new PlainFolders(root, await quotaOf(root, mode, context));
    return new FolderDriver({ name: "vfs", type: "object", ids: VFS_IDS, root, backing }, context);
  },
});
