/** Images that are written only to be read once. */
import { randomUUID } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { OpContext } from "../../core/driver.js";
import { TEMPORARY_PREFIX } from "../../core/files.js";

const PREFIX = `${TEMPORARY_PREFIX}spool-`;
const DEFERRED = { isSyncDeferred: true };

/** Those of this run. */
const inUse = new Set<string>();

/** Those that earlier runs have left. */
export function leftSpools(root: string): string[] {
  return readdirSync(root)
    .filter((name) => name.startsWith(PREFIX))
    .map((name) => join(root, name))
    .filter((path) => !inUse.has(path));
}

/** Lends an empty folder, which is gone afterwards with all that is in it. */
export async function withSpool<T>(
  root: string,
  { files }: OpContext,
  use: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = join(root, `${PREFIX}${randomUUID()}`);
  inUse.add(folder);
  try {
    await files.makeFolder(folder, 0o700, DEFERRED);
    return await use(folder);
  } finally {
    await files.removeTree(folder, DEFERRED).catch(() => {});
    inUse.delete(folder);
  }
}
