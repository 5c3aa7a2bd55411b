/**
 * The place at which a volume is mounted: what stands there, and how it is made and cleared. Nothing is
 * guessed, nothing is hidden, and nothing that holds data is ever removed.
 */
import { lstatSync, realpathSync } from "node:fs";
import type { Stats } from "node:fs";
import * as fs from "node:fs/promises";
import { basename, dirname, isAbsolute, join, normalize } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { Exec } from "./exec.js";
import { CommandError } from "./exec.js";
import type { MountRecord } from "./executor.js";
import { holdersOf } from "./holders.js";
import { mountsAt, readMountTable } from "./mount-table.js";
import type { MountTable } from "./mount-table.js";

export interface MountHost {
  readonly exec: Exec;
  readonly isRoot: boolean;
  /** How long a busy mount point is tried again. */
  readonly busyMs: number;
  /** How long one try to unmount may take; default is the door's. */
  readonly unmountMs?: number;
}

/** @param isMount whether something is mounted there, whose server or device may not answer */
export async function lstatOf(path: string, isMount = true): Promise<Stats | undefined> {
  try {
    return isMount ? await fs.lstat(path) : lstatSync(path);
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

function realPathOf(folder: string): string | undefined {
  try {
    return realpathSync.native(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT" && folder !== "/") return undefined;
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
    const real = realPathOf(at);
    if (real !== undefined) return join(real, ...missing.toReversed(), basename(plain));
    missing.push(basename(at));
  }
}

export type Standing =
  | { readonly kind: "nothing" | "empty-folder" }
  | { readonly kind: "mount"; readonly top: MountRecord }
  | { readonly kind: "other"; readonly what: string; readonly isMount: boolean };

export function mountInWords({ source, root, fsType }: MountRecord): string {
  return `a mount of ${source}${root === "/" ? "" : root} (${fsType})`;
}

/**
 * What stands at a mount point. A mount is only looked at in the kernel's table: looking at the folder itself
 * would hang where its server or its device is dead.
 * @param isWanted whether the top mount is the one that shall be there
 */
export async function standingAt(
  mountPoint: string,
  isWanted: (top: MountRecord) => boolean | Promise<boolean>,
  table: MountTable = readMountTable,
): Promise<Standing> {
  const top = mountsAt(await table(), mountPoint).at(-1);
  if (top !== undefined)
    return (await isWanted(top))
      ? { kind: "mount", top }
      : { kind: "other", what: mountInWords(top), isMount: true };
  const other = (what: string): Standing => ({ kind: "other", what, isMount: false });
  const found = await lstatOf(mountPoint, false);
  if (found === undefined) return { kind: "nothing" };
  if (found.isSymbolicLink()) return other(`a symbolic link to ${await fs.readlink(mountPoint)}`);
  if (!found.isDirectory()) return other("a file");
  const content = await fs.readdir(mountPoint);
  if (content.length === 0) return { kind: "empty-folder" };
  return other(contentInWords(content));
}

export function contentInWords(content: readonly string[]): string {
  return `a folder with content (${content.slice(0, 3).join(", ")})`;
}

export function inTheWay(mountPoint: string, what: string, step: string): StorageError {
  return new StorageError(
    "failed-precondition",
    `${mountPoint} is not free: there is ${what}; ${step}`,
    { mountPoint, found: what },
  );
}

/** Options become an argument of mount(8): only what options are made of. */
export function checkMountOptions(options: string): string {
  if (/^[\w=.:/@%+-]+(?:,[\w=.:/@%+-]+)*$/.test(options)) return options;
  throw new StorageError("invalid-argument", `"${options}" are no mount options`);
}

/** A folder with something in it stays: what is in it may be somebody's. */
export async function removeEmpty(folder: string): Promise<void> {
  await fs.rmdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (!["ENOTEMPTY", "EEXIST", "ENOENT", "EBUSY", "ENOTDIR"].includes(error.code ?? ""))
      throw error;
  });
}

/** Unmounts the top mount; one that is busy is tried again for a while. */
export async function unmountBusy(
  host: MountHost,
  mountPoint: string,
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + host.busyMs;
  for (;;) {
    try {
      await host.exec("umount", ["--", mountPoint], {
        signal,
        ...(host.unmountMs !== undefined && { timeoutMs: host.unmountMs }),
      });
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
