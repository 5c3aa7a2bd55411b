/** Small files that are whole and on the disk when they are written. */
import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import * as fs from "node:fs/promises";
import { dirname } from "node:path";

async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.open(folder, "r").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  try {
    await handle?.sync();
  } finally {
    await handle?.close();
  }
}

/**
 * Durable when it answers: temporary file, sync, rename, sync of the folder. One writer at a time.
 * @param temporary on the same file system; beside the file unless told
 */
export async function writeDurably(
  file: string,
  text: string,
  temporary = `${file}.tmp`,
): Promise<void> {
  const folder = dirname(file);
  await fs.mkdir(folder, { recursive: true, mode: 0o755 });
  const handle = await fs.open(temporary, "w", 0o600);
  try {
    await handle.writeFile(text);
    await handle.datasync();
  } finally {
    await handle.close();
  }
  await fs.rename(temporary, file);
  await syncFolder(folder);
}

/**
 * Whole for everybody who reads it, and there when this process ends; on the disk a moment later. Without
 * a sync it takes less time than another thread needs to be asked to do it.
 */
export async function writeWhole(file: string, text: string): Promise<void> {
  const temporary = `${file}.tmp`;
  mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
  writeFileSync(temporary, text, { mode: 0o600 });
  renameSync(temporary, file);
}

/** One that is not there is fine. */
export async function removeDurably(file: string): Promise<void> {
  await fs.rm(file, { force: true });
  await syncFolder(dirname(file));
}
