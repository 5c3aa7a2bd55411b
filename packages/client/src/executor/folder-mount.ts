/**
 * A folder of this host made visible at a mount point: by a bind mount, or, for a user who is not root,
 * by a symbolic link. Nothing is guessed, nothing is hidden, and nothing that holds data is ever removed.
 */
import { mkdirSync, readdirSync } from "node:fs";
import type { Stats } from "node:fs";
import * as fs from "node:fs/promises";
import { dirname } from "node:path";
import { StorageError } from "@libstorage/model";
import type { Mounted, MountRequest, UnmountRequest } from "./executor.js";
import {
  canonical,
  checkMountOptions,
  contentInWords,
  inTheWay,
  lstatOf,
  mountInWords,
  removeEmpty,
  unmountBusy,
} from "./mount-point.js";
import type { MountHost } from "./mount-point.js";
import { mountsAt, readMountTable } from "./mount-table.js";

export { canonical, checkMountOptions };

function isSameFolder(a: Stats | undefined, b: Stats | undefined): boolean {
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

type Standing =
  | { readonly kind: "nothing" | "empty-folder" | "mount" | "link" }
  | { readonly kind: "other"; readonly what: string };

/** What stands at a mount point, seen from the folder that shall be there. */
async function standing(mountPoint: string, folder: string): Promise<Standing> {
  const top = mountsAt(await readMountTable(), mountPoint).at(-1);
  const [found, wanted] = await Promise.all([
    lstatOf(mountPoint, top !== undefined),
    top === undefined ? undefined : fs.stat(folder).catch(() => undefined),
  ]);
  if (found === undefined) return { kind: "nothing" };
  if (found.isSymbolicLink()) {
    const target = await fs.readlink(mountPoint);
    if (target === folder) return { kind: "link" };
    return { kind: "other", what: `a symbolic link to ${target}` };
  }
  if (!found.isDirectory()) return { kind: "other", what: "a file" };
  if (top !== undefined) {
    // A folder that was removed under its mount cannot be compared; the kernel marks the mount.
    const isGone = wanted === undefined && top.root.endsWith("//deleted");
    if (isGone || isSameFolder(found, wanted)) return { kind: "mount" };
    return { kind: "other", what: mountInWords(top) };
  }
  const content = readdirSync(mountPoint);
  if (content.length === 0) return { kind: "empty-folder" };
  return { kind: "other", what: contentInWords(content) };
}

/** @throws {StorageError} `failed-precondition`, naming what is in the way */
export async function mountFolder(
  host: MountHost,
  { device: folder, mountPoint: given, options = "", signal }: MountRequest,
): Promise<Mounted> {
  const mountPoint = await canonical(given);
  const there = await standing(mountPoint, folder);
  if (there.kind === "mount" || there.kind === "link")
    return { mountPoint, kind: there.kind, wasThere: true };
  if (there.kind === "other")
    throw inTheWay(mountPoint, there.what, "remove it, or mount the volume elsewhere");
  mkdirSync(dirname(mountPoint), { recursive: true, mode: 0o755 });
  if (!host.isRoot) {
    // Only a folder that is empty goes away by this call.
    if (there.kind === "empty-folder") await fs.rmdir(mountPoint);
    await fs.symlink(folder, mountPoint);
    return { mountPoint, kind: "link", wasThere: false };
  }
  if (there.kind === "nothing") mkdirSync(mountPoint, { mode: 0o755 });
  const opts = options === "" ? "bind" : `bind,${checkMountOptions(options)}`;
  await host.exec("mount", ["-o", opts, "--", folder, mountPoint], { signal });
  const now = await standing(mountPoint, folder);
  if (now.kind !== "mount")
    throw new StorageError(
      "internal",
      `mount succeeded, but ${folder} does not stand at ${mountPoint}; look at it with findmnt ${mountPoint}`,
      { mountPoint, device: folder },
    );
  return { mountPoint, kind: "mount", wasThere: false };
}

/** Whether the folder is what stands at the mount point. */
export async function isFolderMounted(folder: string, given: string): Promise<boolean> {
  const { kind } = await standing(await canonical(given), folder);
  return kind === "mount" || kind === "link";
}

/** Links are not found so: nobody keeps a list of them. */
export async function mountPointsOfFolder(folder: string): Promise<readonly string[]> {
  const wanted = await fs.stat(folder).catch(() => undefined);
  if (wanted === undefined) return [];
  const found: string[] = [];
  for (const { root, mountPoint } of await readMountTable()) {
    // Looking at a mount of a dead server hangs: only those are looked at that can be the folder's.
    if (root === "/" || !folder.endsWith(root)) continue;
    const at = await fs.lstat(mountPoint).catch(() => undefined);
    if (isSameFolder(at, wanted)) found.push(mountPoint);
  }
  return found;
}

/**
 * Takes a mount or link away; with `removeFolder` also the folder below it, if that is empty.
 * @throws {StorageError} `failed-precondition` when something else stands there, or processes use it
 */
export async function unmountFolder(
  host: MountHost,
  { mountPoint: given, device, removeFolder, signal }: UnmountRequest,
): Promise<void> {
  const mountPoint = await canonical(given);
  const found = await lstatOf(mountPoint);
  if (found === undefined) return;
  if (found.isSymbolicLink()) {
    const target = await fs.readlink(mountPoint);
    if (device !== undefined && target !== device)
      throw inTheWay(mountPoint, `a symbolic link to ${target}`, "it is left as it is");
    await fs.unlink(mountPoint);
    // The link took the place of an empty folder.
    if (!removeFolder) await fs.mkdir(mountPoint, { mode: 0o755 });
    return;
  }
  const top = mountsAt(await readMountTable(), mountPoint).at(-1);
  if (top !== undefined) {
    const wanted = device === undefined ? undefined : await fs.stat(device).catch(() => undefined);
    const isGone = device !== undefined && wanted === undefined && top.root.endsWith("//deleted");
    if (device !== undefined && !isGone && !isSameFolder(found, wanted))
      throw inTheWay(mountPoint, `a mount of ${top.source}${top.root}`, "it is left as it is");
    await unmountBusy(host, mountPoint, signal);
  }
  if (removeFolder) await removeEmpty(mountPoint);
}
