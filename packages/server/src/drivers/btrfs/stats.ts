/** What a path is, of what matters to btrfs. */
import { accessSync, constants } from "node:fs";
import type { Stats } from "node:fs";

/** The root folder of every subvolume has this inode: BTRFS_FIRST_FREE_OBJECTID of the kernel. */
const SUBVOLUME_INODE = 256;

export function isSubvolume(stats: Stats): boolean {
  return stats.isDirectory() && stats.ino === SUBVOLUME_INODE;
}

export function isReadOnly(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EROFS";
  }
}
