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
