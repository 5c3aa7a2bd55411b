/** Small files that are whole and on the disk when they are written. */
import * as fs from "node:fs/promises";
import { dirname } from "node:path";

export async function syncFolder(folder: string): Promise<void> {
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

/** Durable when it answers: temporary file, sync, rename, sync of the folder. One writer at a time. */
export async function writeDurably(file: string, text: string): Promise<void> {
  const folder = dirname(file);
  await fs.mkdir(folder, { recursive: true, mode: 0o755 });
  const temporary = `${file}.tmp`;
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

/** Whole for everybody who reads it, and there when this process ends; on the disk a moment later. */
export async function writeWhole(file: string, text: string): Promise<void> {
  const temporary = `${file}.tmp`;
  const write = (): Promise<void> => fs.writeFile(temporary, text, { mode: 0o600 });
  await write().catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
    await fs.mkdir(dirname(file), { recursive: true, mode: 0o755 });
    await write();
  });
  await fs.rename(temporary, file);
}

/** One that is not there is fine. */
export async function removeDurably(file: string): Promise<void> {
  await fs.rm(file, { force: true });
  await syncFolder(dirname(file));
}
