/** btrfs(8) of btrfs-progs: arguments out, reports in. No JSON: progs 6.2 abort over limits (exit 134). */
import { dirname } from "node:path";
import type { Readable, Writable } from "node:stream";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";
import type { ExecOptions } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";
import {
  commit,
  noSubvolumeBelow,
  subvolumeCreate,
  subvolumeDelete,
  subvolumeSnapshot,
} from "./ioctl.js";
import { NO_TIME_LIMIT_MS } from "../folders/time-limit.js";
import {
  parseDeleted,
  parseIDs,
  parseLimits,
  parsePaths,
  parseUUID,
  parseUUIDs,
} from "./reports.js";
import type { SubvolumeUUID } from "./reports.js";

/** What changes something may have to wait for a busy file system to write all it has. */
const BUSY: ExecOptions = { timeoutMs: 30 * 60_000 };

/** @param args never with a path that could be taken for an option: all are absolute */
async function btrfs(
  { exec, signal }: Pick<OpContext, "exec" | "signal">,
  args: readonly string[],
  options?: ExecOptions,
): Promise<string> {
  try {
    return (await exec("btrfs", args, signal, options)).stdout;
  } catch (error) {
    throw explained(error);
  }
}

const NO_QUOTA = /quotas? not enabled/;

/** What only this tool says, in the words of the API; what others say too is left to `failureOf`. */
function explained(error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  const say = (text: string): StorageError =>
    new StorageError("failed-precondition", text, error.data, { cause: error });
  if (error.isMissing) return say(`${error.message} (Debian: apt-get install btrfs-progs)`);
  if (NO_QUOTA.test(error.stderr))
    return say("quota was switched off on this file system; switch it on: btrfs quota enable");
  if (/not a (?:valid )?btrfs filesystem/i.test(error.stderr))
    return say("this is no btrfs file system; is it mounted?");
  return error;
}

/** @param path nothing may be there */
export async function createSubvolume(context: OpContext, path: string): Promise<void> {
  const inKernel = subvolumeCreate(path);
  await btrfs(context, ["subvolume", "create", path], { ...BUSY, inKernel });
}

/**
 * A snapshot is on its disk when this answers: the kernel commits for it.
 * @param to nothing may be there: in a folder of that name the snapshot would be made inside it, as if all
 * were well
 */
export async function snapshotSubvolume(
  context: OpContext,
  from: string,
  to: string,
  isReadOnly: boolean,
): Promise<void> {
  const flags = isReadOnly ? ["-r"] : [];
  const inKernel = subvolumeSnapshot(from, to, isReadOnly);
  await btrfs(context, ["subvolume", "snapshot", ...flags, from, to], { ...BUSY, inKernel });
}

/**
 * Makes a subvolume of another file system anew, read-only and under its name.
 * @param from read-only
 * @param into a folder without anything of that name; when this fails, something unfinished may be there
 * @param onStart told of the process that writes as many bytes as the subvolume takes in all, about
 */
export async function sendSubvolume(
  context: OpContext,
  from: string,
  into: string,
  onStart: (pid: number) => void,
): Promise<void> {
  await btrfs(context, ["send", "-q", from], {
    timeoutMs: NO_TIME_LIMIT_MS,
    onStart,
    into: { file: "btrfs", args: ["receive", "-q", into] },
  });
}

/** @param from read-only @param parent read-only: only what differs from it is sent */
export async function sendStream(
  context: OpContext,
  from: string,
  parent: string | undefined,
  to: Writable,
): Promise<void> {
  const base = parent === undefined ? [] : ["-p", parent];
  await btrfs(context, ["send", "-q", ...base, from], { timeoutMs: NO_TIME_LIMIT_MS, to });
}

/**
 * Makes the subvolumes of a stream in a folder, which no path in the stream leads out of.
 * @param into holds what the stream builds on
 * @throws {StorageError} `invalid-argument` for what is no such stream
 */
export async function receiveStream(
  context: OpContext,
  into: string,
  from: Readable,
): Promise<void> {
  try {
    const args = ["receive", "-q", "--chroot", into];
    await btrfs(context, args, { timeoutMs: NO_TIME_LIMIT_MS, from });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const refuse = (code: "invalid-argument" | "failed-precondition", text: string): StorageError =>
      new StorageError(code, text, error.data, { cause: error });
    if (NO_PARENT.test(error.stderr))
      throw refuse("failed-precondition", "what the content builds on is not here; send it whole");
    if (NO_STREAM.test(error.stderr))
      throw refuse("invalid-argument", "the content is no whole stream of btrfs send");
    throw error;
  }
}

const NO_PARENT = /cannot find parent|parent subvol is not reachable|did not find source subvol/;
const NO_STREAM =
  /empty stream|not.*stream|Expected magic|unexpected|invalid|short read|crc32|[Bb]ad.*stream|magic/;

/** Subvolumes of the file system with what names their content. */
export async function subvolumeUUIDs(context: OpContext, path: string): Promise<SubvolumeUUID[]> {
  return parseUUIDs(await btrfs(context, ["subvolume", "list", "-u", "-R", path]));
}

/**
 * Deletes it, durably, with what was unlinked on the file system before; the cleaner is not waited for.
 * @param path of a subvolume, not of a link to one: the tool would follow it
 * @returns whether it is gone; not so when there are subvolumes in it
 */
export async function deleteSubvolume(context: OpContext, path: string): Promise<boolean> {
  try {
    const inKernel = subvolumeDelete(path);
    await btrfs(context, ["subvolume", "delete", path], { ...BUSY, inKernel });
  } catch (error) {
    if (error instanceof CommandError && /Directory not empty/.test(error.stderr)) return false;
    throw error;
  }
  const folder = dirname(path);
  const inKernel = commit(folder);
  await btrfs(context, ["filesystem", "sync", folder], { ...BUSY, inKernel });
  return true;
}

/** Paths, in their file system, of the subvolumes directly below one. Names with line breaks come apart. */
export async function subvolumesBelow(context: OpContext, path: string): Promise<string[]> {
  const inKernel = noSubvolumeBelow(path);
  return parsePaths(await btrfs(context, ["subvolume", "list", "-o", path], { inKernel }));
}

/** How many deleted subvolumes of the file system wait for the kernel's cleaner. */
export async function deletedSubvolumes(context: OpContext, path: string): Promise<number> {
  return parseDeleted(await btrfs(context, ["subvolume", "list", "-d", path]));
}

/** @param mountPoint a path below it would not do */
export async function uuidOf(context: OpContext, mountPoint: string): Promise<string> {
  return parseUUID(await btrfs(context, ["filesystem", "show", mountPoint]));
}

export type QuotaMode = "simple" | "qgroup";

/** Harmless when it is on already. @throws {StorageError} `unimplemented` when the tool is too old for it */
export async function enableQuota(
  context: OpContext,
  path: string,
  mode: QuotaMode,
): Promise<void> {
  try {
    const flags = mode === "simple" ? ["--simple"] : [];
    await btrfs(context, ["quota", "enable", ...flags, path], BUSY);
  } catch (error) {
    if (mode !== "simple" || !(error instanceof CommandError)) throw error;
    if (!/unrecognized option|usage:|Invalid argument/.test(error.stderr)) throw error;
    throw new StorageError(
      "unimplemented",
      "simple quota cannot be switched on by this host: that takes btrfs-progs 6.7 and Linux 6.7",
      error.data,
      { cause: error },
    );
  }
}

export interface SubvolumeLimit {
  /** In the file system, as `subvolumesBelow` has it. */
  readonly path: string;
  /** Undefined: it has none. */
  readonly limitBytes: number | undefined;
}

/** The limits of all subvolumes that are in the same subvolume as a folder, by two reports. */
export async function limitsBeside(context: OpContext, folder: string): Promise<SubvolumeLimit[]> {
  const [list, groups] = await Promise.all([
    btrfs(context, ["subvolume", "list", "-o", folder]),
    // Not as JSON: that aborts as soon as there is a limit.
    btrfs(context, ["qgroup", "show", "-r", "--raw", folder]),
  ]);
  const limits = parseLimits(groups);
  return [...parseIDs(list)].map(([id, path]) => ({ path, limitBytes: limits.get(id) }));
}

/** @param sizeBytes 0 takes the limit away */
export async function limitSubvolume(
  context: OpContext,
  path: string,
  sizeBytes: number,
): Promise<void> {
  const size = sizeBytes === 0 ? "none" : String(sizeBytes);
  await btrfs(context, ["qgroup", "limit", size, path], BUSY);
}

/** Removes quota groups whose subvolumes are gone, where the kernel has not done so. */
export async function clearStaleGroups(context: OpContext, path: string): Promise<void> {
  await btrfs(context, ["qgroup", "clear-stale", path], BUSY);
}
