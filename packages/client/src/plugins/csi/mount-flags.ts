/** Mount flags of a request: those of a mount, and those of a file system. */
import { CsiError } from "./status.js";

/** What every mount may have by itself. @see mount(8), FILESYSTEM-INDEPENDENT MOUNT OPTIONS */
const OF_A_MOUNT = new Set([
  "ro",
  "rw",
  "atime",
  "noatime",
  "diratime",
  "nodiratime",
  "relatime",
  "norelatime",
  "strictatime",
  "nostrictatime",
  "dev",
  "nodev",
  "exec",
  "noexec",
  "suid",
  "nosuid",
  "nosymfollow",
  "defaults",
]);

/** What would make of a mount something else than it is meant to be. */
const NEVER = /^(?:bind|rbind|move|remount|loop|offset|sizelimit|make-|shared|private|slave)/;

/** Single options, each once, in order. */
export function flagsOf(mountFlags: readonly string[]): string[] {
  const all = mountFlags.flatMap((flag) => flag.split(",")).filter((flag) => flag !== "");
  if (all.some((flag) => NEVER.test(flag)))
    throw new CsiError(
      "INVALID_ARGUMENT",
      "mount_flags: bind, remount, loop and the like are not for volumes",
    );
  return [...new Set(all)];
}

/** Those that only a file system takes, which get it where it is mounted itself. */
export function fileSystemFlags(flags: readonly string[]): string[] {
  return flags.filter((flag) => !OF_A_MOUNT.has(flag));
}

/** What is kept of the options of a mount by every other one of the same files. */
const KEPT = new Set(["nosuid", "nodev", "noexec", "nosymfollow", "noatime", "nodiratime"]);

/** Whether the kernel's table names it. */
export function isTold(flag: string): boolean {
  return flag === "ro" || KEPT.has(flag);
}

/**
 * The options with which what is mounted already is bound at another place. To give it any is to give it all, so
 * those of the mount itself come first.
 * @param opts of the mount, as the kernel tells them
 * @returns none when it shall be as the mount is
 */
export function bindFlags(opts: string, flags: readonly string[], readonly: boolean): string[] {
  const own = flags.filter((flag) => OF_A_MOUNT.has(flag) && flag !== "defaults");
  const asked = own.filter((flag) => flag !== "ro" && flag !== "rw");
  if (readonly || own.findLast((flag) => flag === "ro" || flag === "rw") === "ro") asked.push("ro");
  if (asked.length === 0) return [];
  const isOther = asked.some((flag) => /^(?:rel|strict)atime$/.test(flag));
  const kept = opts.split(",").filter((flag) => KEPT.has(flag) && !(isOther && flag === "noatime"));
  return [...new Set([...kept, ...asked])];
}

/**
 * The options with which a folder is mounted; it has no file system of its own to give options to.
 * @throws {CsiError} FAILED_PRECONDITION, without quoting the flags
 */
export function folderFlags(flags: readonly string[]): string[] {
  if (flags.every((flag) => OF_A_MOUNT.has(flag)))
    return flags.filter((flag) => flag !== "defaults");
  throw new CsiError(
    "FAILED_PRECONDITION",
    `mount_flags: volumes of this service are folders, which take only ${[...OF_A_MOUNT].join(", ")}`,
  );
}
