/**
 * A folder of this host made visible at a mount point: by a bind mount, or, for a user who is not root,
 * by a symbolic link. Nothing is guessed, nothing is hidden, and nothing that holds data is ever removed.
 */
import type { Stats } from "node:fs";
import * as fs from "node:fs/promises";
import { basename, dirname, isAbsolute, join, normalize } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { Exec } from "./exec.js";
import { CommandError } from "./exec.js";
import type { Mounted, MountRequest, UnmountRequest } from "./executor.js";
import { holdersOf } from "./holders.js";
import { mountsAt, readMountTable } from "./mount-table.js";

export interface MountHost {
  readonly exec: Exec;
  readonly isRoot: boolean;
  /** How long a busy mount point is tried again. */
  readonly busyMs: number;
}

async function lstatOf(path: string): Promise<Stats | undefined> {
  try {
    return await fs.lstat(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    if (code === "ENOTDIR" || code === "EACCES" || code === "ELOOP")
      throw new StorageError(
        code === "EACCES" ? "permission-denied" : "failed-precondition",
        `cannot look at ${path}: ${code === "ENOTDIR" ? "a part of its path is not a folder" : String(code)}`,
        { path },
        { cause: error },
      );
    throw error;
  }
}

/** The path with every link in its parents resolved, as the kernel's table has it. */
export async function canonical(path: string): Promise<string> {
  if (!isAbsolute(path) || path.includes("\0") || normalize(path) === "/")
    throw new StorageError(
      "invalid-argument",
      `"${path}" is no mount point: write an absolute path`,
      { path },
    );
  const plain = normalize(path).replace(/\/$/, "");
  const missing: string[] = [];
  for (let at = dirname(plain); ; at = dirname(at)) {
    const real = await fs.realpath(at).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" && at !== "/") return undefined;
      throw error;
    });
    if (real !== undefined) return join(real, ...missing.toReversed(), basename(plain));
    missing.push(basename(at));
  }
}

function isSameFolder(a: Stats | undefined, b: Stats | undefined): boolean {
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

type Standing =
  | { readonly kind: "nothing" | "empty-folder" | "mount" | "link" }
  | { readonly kind: "other"; readonly what: string };

/** What stands at a mount point, seen from the folder that shall be there. */
async function standing(mountPoint: string, folder: string): Promise<Standing> {
  const found = await lstatOf(mountPoint);
  if (found === undefined) return { kind: "nothing" };
  if (found.isSymbolicLink()) {
    const target = await fs.readlink(mountPoint);
    if (target === folder) return { kind: "link" };
    return { kind: "other", what: `a symbolic link to ${target}` };
  }
  if (!found.isDirectory()) return { kind: "other", what: "a file" };
  const top = mountsAt(await readMountTable(), mountPoint).at(-1);
  if (top !== undefined) {
    const wanted = await fs.stat(folder).catch(() => undefined);
    // A folder that was removed under its mount cannot be compared; the kernel marks the mount.
    const isGone = wanted === undefined && top.root.endsWith("//deleted");
    if (isGone || isSameFolder(found, wanted)) return { kind: "mount" };
    return { kind: "other", what: `a mount of ${top.source}${top.root} (${top.fsType})` };
  }
  const content = await fs.readdir(mountPoint);
  if (content.length === 0) return { kind: "empty-folder" };
  return { kind: "other", what: `a folder with content (${content.slice(0, 3).join(", ")})` };
}

function inTheWay(mountPoint: string, what: string, step: string): StorageError {
  return new StorageError(
    "failed-precondition",
    `${mountPoint} is not free: there is ${what}; ${step}`,
    { mountPoint, found: what },
  );
}

/** Options become an argument of mount(8): only what options are made of. @throws {StorageError} `invalid-argument` */
export function checkMountOptions(options: string): string {
  if (/^[\w=.:/@%+-]+(?:,[\w=.:/@%+-]+)*$/.test(options)) return options;
  throw new StorageError("invalid-argument", `"${options}" are no mount options`);
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
  await fs.mkdir(dirname(mountPoint), { recursive: true, mode: 0o755 });
  if (!host.isRoot) {
    // Only a folder that is empty goes away by this call.
    if (there.kind === "empty-folder") await fs.rmdir(mountPoint);
    await fs.symlink(folder, mountPoint);
    return { mountPoint, kind: "link", wasThere: false };
  }
  if (there.kind === "nothing") await fs.mkdir(mountPoint, { mode: 0o755 });
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

/** A folder with something in it stays: what is in it may be somebody's. */
export async function removeEmpty(folder: string): Promise<void> {
  await fs.rmdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (!["ENOTEMPTY", "EEXIST", "ENOENT", "EBUSY", "ENOTDIR"].includes(error.code ?? ""))
      throw error;
  });
}

async function unmountBusy(
  host: MountHost,
  mountPoint: string,
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + host.busyMs;
  for (;;) {
    try {
      await host.exec("umount", ["--", mountPoint], { signal });
      return;
    } catch (error) {
      if (!(error instanceof CommandError) || !/busy/i.test(error.stderr)) throw error;
      if (performance.now() >= deadline || signal.aborted) throw await busy(mountPoint, error);
    }
    await sleep(250, undefined, { signal }).catch(() => {});
  }
}

async function busy(mountPoint: string, cause: CommandError): Promise<StorageError> {
  const holders = await holdersOf(mountPoint);
  const names = holders.map(({ pid, command }) => `${command} (pid ${pid})`).join(", ");
  return new StorageError(
    "failed-precondition",
    `${mountPoint} is in use${names === "" ? " by a process that this user cannot see" : ` by ${names}`}; end that use and unmount again`,
    { mountPoint, holders: holders.map(({ pid }) => pid) },
    { cause },
  );
}
