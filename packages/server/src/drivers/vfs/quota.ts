/**
 * Size limits by project quota: chattr(1) of e2fsprogs puts a folder into a project, setquota(8) of the
 * quota tools limits what the project may use. Both work on ext4 and XFS.
 */
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";
import { VFS_IDS } from "./ids.js";
import { mountOf } from "../../core/mounts.js";
import type { Mount } from "../../core/mounts.js";
import { NO_TIME_LIMIT_MS } from "../folders/time-limit.js";

export interface Quota {
  /** Puts an empty folder, and all that will be in it, into a project. */
  assign(folder: string, projectID: number, context: OpContext): Promise<void>;
  /** Puts a folder into a project with all that is in it already. */
  adopt(folder: string, projectID: number, context: OpContext): Promise<void>;
  /** What the project may use; 0 is no limit, as for a folder that is gone. */
  limit(projectID: number, sizeBytes: number, context: OpContext): Promise<void>;
}

/** Whether limits can be set, and what stands in the way where they cannot. */
export interface QuotaFinding {
  readonly quota: Quota | undefined;
  readonly detail: string;
}

function openQuota(mountPoint: string): Quota {
  return {
    async assign(folder, projectID, { exec, signal }) {
      await exec("chattr", ["+P", "-p", String(projectID), folder], signal);
    },
    async adopt(folder, projectID, { exec, signal }) {
      // Only files and folders have a project, and only folders hand it on; chattr -R stops at the others.
      const find = (kinds: readonly string[], change: readonly string[]) =>
        exec("find", [folder, "-xdev", ...kinds, "-exec", "chattr", ...change, "{}", "+"], signal, {
          timeoutMs: NO_TIME_LIMIT_MS,
        });
      await find(["-type", "f,d"], ["-p", String(projectID)]);
      await find(["-type", "d"], ["+P"]);
    },
    async limit(projectID, sizeBytes, { exec, signal }) {
      const kib = Math.ceil(sizeBytes / 1024);
      // Soft and hard limit of blocks, then of inodes; 0 is none.
      const limits = ["0", String(kib), "0", "0"];
      await exec("setquota", ["-P", String(projectID), ...limits, mountPoint], signal);
    },
  };
}

/** Looks at the file system of `root` and at the tools. */
export async function findQuota(
  root: string,
  mounts: readonly Mount[],
  context: OpContext,
): Promise<QuotaFinding> {
  const none = (why: string): QuotaFinding => ({
    quota: undefined,
    detail: `sizes are not enforced: ${why}`,
  });
  const mount = mountOf(mounts, root);
  if (mount === undefined) return none("the file system is not in the table of mounts");
  const { fsType, mountPoint, options } = mount;
  const place = `the ${fsType} at ${mountPoint}`;
  if (fsType !== "ext4" && fsType !== "xfs") return none(`${place} has no project quota`);
  if (!options.includes("prjquota") && !options.includes("pquota"))
    return none(`${place} is not mounted with prjquota`);
  if (process.getuid?.() !== 0) return none("only root can set project quotas");
  try {
    await context.exec("setquota", ["--version"], context.signal);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    return none(`${error.message} (Debian: apt-get install quota)`);
  }
  return { quota: openQuota(mountPoint), detail: `project quota of ${place}` };
}

/** @throws {StorageError} `failed-precondition` when limits are required and cannot be had */
export function requireQuota({ quota, detail }: QuotaFinding): void {
  if (quota !== undefined) return;
  throw new StorageError(
    "failed-precondition",
    `quota: require cannot be met: ${detail}; mend this or set quota: auto`,
  );
}

function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index += 1)
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193) >>> 0;
  return value;
}

/**
 * The project of a volume: the same whenever it is asked, so that it can be cleared even after the record
 * is lost. Numbers follow each other, so that no two volumes of one root share a project; roots on one
 * file system start far apart. Below 2^20 is left to others.
 */
export function projectIDOf(rootInode: number, volumeID: string): number {
  const offset = VFS_IDS.numberOfVolume(volumeID) ?? hash(volumeID);
  return 2 ** 20 + ((hash(String(rootInode)) + offset) % 2 ** 30);
}
