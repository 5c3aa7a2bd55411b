/** Folders for tests: in memory where the host has a tmpfs, so that thousands of cases stay quick. */
import { accessSync, constants, mkdtempSync, statfsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const SHARED_MEMORY = "/dev/shm";
const NEEDED_BYTES = 256 * 1024 ** 2;

function isRoomy(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize > NEEDED_BYTES;
  } catch {
    return false;
  }
}

/** Where quick temporary files go. */
export function scratchParent(): string {
  return isRoomy(SHARED_MEMORY) ? SHARED_MEMORY : tmpdir();
}

/** A new folder for one test file, and how to remove it. */
export function makeScratch(name: string): { readonly path: string; remove(): Promise<void> } {
  const path = mkdtempSync(join(scratchParent(), `libstorage-${name}-`));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}
