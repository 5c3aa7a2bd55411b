/** Small files of this host's own, and their folders: read sooner than another thread could be asked to. */
import { readdirSync, readFileSync } from "node:fs";

/** @returns undefined for one that is not there */
export function readSmallFile(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** @returns the names in it; none for one that is not there */
export function readSmallFolder(folder: string): readonly string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
