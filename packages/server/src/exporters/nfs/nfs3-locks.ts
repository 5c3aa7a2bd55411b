/**
 * Locks over NFS 3. The kernel's lock manager keeps the file of each lock open until the host unlocks it, so a share
 * whose host does not is busy for ever. It can be told to let go, but only of all locks in a whole file system; and
 * since Linux 6.9 that revokes what hosts of NFS 4 have open there, too.
 * @see nfsd(7), unlock_filesystem
 */
import { dirname } from "node:path";
import type { OpContext } from "../../core/driver.js";
import { mountOf } from "../../core/mounts.js";
import type { Mount } from "../../core/mounts.js";
import type { Exported } from "./exportfs.js";

export const UNLOCK_FILE = "/proc/fs/nfsd/unlock_filesystem";

/** What else is served, at the time of a cut. */
export interface Beside {
  readonly table: readonly Exported[];
  readonly mounts: readonly Mount[];
  /** That has the shares of all services: `FOLDER/SERVICE/VOLUME/EPOCH`. */
  readonly sharesFolder: string;
  /** Whether another host has files open over NFS 4, anywhere. */
  readonly hasOpenFiles: boolean;
  /** The kernel's, such as `6.1.0-40-amd64`. */
  readonly release: string;
}

/**
 * Who would lose what it needs when the locks in the file system of a share were let go. A volume with one holder
 * needs none of them: what keeps the programs of one host apart, that host's own kernel knows as well.
 */
export function whoNeedsLocks(path: string, beside: Beside): string | undefined {
  const { table, mounts, sharesFolder, hasOpenFiles, release } = beside;
  if (hasOpenFiles && revokesOpenFiles(release))
    return `Linux ${release} would take away what hosts of NFS 4 have open there, too`;
  const deviceOf = (one: string): string | undefined => mountOf(mounts, one)?.device;
  const device = deviceOf(path);
  const holders = new Map<string, string>();
  for (const { path: other, client } of table) {
    if (other === path || deviceOf(other) !== device) continue;
    if (!other.startsWith(`${sharesFolder}/`))
      return `${other} is in the same file system, and somebody else exports it to ${client}`;
    const volume = dirname(other);
    if ((holders.get(volume) ?? other) !== other)
      return `the volume of ${volume} is in the same file system, and several hosts have it`;
    holders.set(volume, other);
  }
  return undefined;
}

function revokesOpenFiles(release: string): boolean {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  return major > 6 || (major === 6 && minor >= 9);
}

/** @param file the kernel's for this */
export async function unlockFileSystem(
  path: string,
  { files }: OpContext,
  file: string,
): Promise<void> {
  await files.writeAttribute(file, `${path}\n`);
}
