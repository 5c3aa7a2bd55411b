/** mount(8), umount(8): a volume's folder, mounted once more for one holder. */
import { lstatSync, readlinkSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";
import { readMounts } from "../../core/mounts.js";
import type { Mount } from "../../core/mounts.js";

/** Whether what is mounted there is the folder itself, and not one that had its name before. */
export function isMountedAt(path: string, source: string): boolean {
  if (!readMounts().some(({ mountPoint }) => mountPoint === path)) return false;
  try {
    const [there, wanted] = [statSync(path), statSync(source)];
    return there.dev === wanted.dev && there.ino === wanted.ino;
  } catch {
    return false;
  }
}

export function isMounted(path: string): boolean {
  return readMounts().some(({ mountPoint }) => mountPoint === path);
}

/** Mount points of this exporter's kind below a folder: `FOLDER/VOLUME/EPOCH`. */
export function sharesBelow(folder: string, mounts: readonly Mount[] = readMounts()): string[] {
  return mounts
    .map(({ mountPoint }) => mountPoint)
    .filter((path) => path.startsWith(`${folder}/`) && dirname(dirname(path)) === folder);
}

/** The folder and those above it that are missing; by default every user may pass through. */
export async function makeFolders(path: string, { files }: OpContext, mode = 0o755): Promise<void> {
  const missing: string[] = [];
  for (let at = path; lstatSync(at, { throwIfNoEntry: false }) === undefined; at = dirname(at))
    missing.unshift(at);
  for (const folder of missing) await files.makeFolder(folder, mode);
}

/** @param source without links @throws {StorageError} */
export async function mountShare(source: string, path: string, context: OpContext): Promise<void> {
  if (isMountedAt(path, source)) return;
  if (isMounted(path))
    throw new StorageError(
      "failed-precondition",
      `something else is mounted at ${path}; unmount it and try again`,
      { path },
    );
  await makeFolders(path, context);
  await context.exec("mount", ["--bind", "--", source, path], context.signal);
  if (!isMountedAt(path, source))
    throw new StorageError("internal", `${source} could not be mounted at ${path}`, { path });
}

/** @returns whether it is not mounted any more; not so while something uses it */
export async function unmountShare(path: string, context: OpContext): Promise<boolean> {
  if (!isMounted(path)) return true;
  try {
    await context.exec("umount", ["--", path], context.signal);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    if (/target is busy/.test(error.stderr)) return false;
    if (!/not mounted/.test(error.stderr)) throw error;
  }
  return !isMounted(path);
}

/** Removes the folder a share was mounted at, and that of its volume when it is the last. */
export async function removeFolders(path: string, context: OpContext): Promise<void> {
  for (const folder of [path, dirname(path)]) {
    if (lstatSync(folder, { throwIfNoEntry: false }) === undefined) continue;
    // Never with what is in it: that might be a volume.
    const args = ["--ignore-fail-on-non-empty", "--", folder];
    await context.exec("rmdir", args, context.signal);
  }
}

/** Whether mounts made here are unseen by the rest of the host, as below a service manager that hides folders. */
export function isHiddenFromHost(): boolean {
  try {
    return readlinkSync("/proc/self/ns/mnt") !== readlinkSync("/proc/1/ns/mnt");
  } catch {
    return false;
  }
}
