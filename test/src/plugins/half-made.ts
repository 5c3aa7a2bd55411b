/** A device as mkfs leaves it when it is killed: made whole, then without what each tool writes last. */
import { open } from "node:fs/promises";

interface Left {
  readonly at: number;
  readonly bytes: Buffer;
}

const LEFT: Readonly<Record<string, Left>> = {
  // The first superblock is written when all the rest is there.
  "mkfs.ext4": { at: 0, bytes: Buffer.alloc(4096) },
  // Until its end the superblock has another magic, BTRFS_MAGIC_TEMPORARY.
  "mkfs.btrfs": { at: 64 * 1024 + 64, bytes: Buffer.from("!BHRfS_M") },
  // sb_inprogress.
  "mkfs.xfs": { at: 126, bytes: Buffer.from([1]) },
};

/** @param tool what has just made a file system on the device */
export async function leaveHalf(tool: string, device: string): Promise<void> {
  const left = LEFT[tool];
  if (left === undefined) throw new Error(`no knowledge of what ${tool} leaves`);
  const handle = await open(device, "r+");
  try {
    await handle.write(left.bytes, 0, left.bytes.length, left.at);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
