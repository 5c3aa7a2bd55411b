/** A file system of its own on a loop device, for what depends on one. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface LoopOptions {
  readonly type: "btrfs" | "ext4" | "xfs";
  readonly sizeMiB: number;
  readonly mkfsArgs?: readonly string[];
  readonly mountOptions?: readonly string[];
  /** Holds the image; default is the system's folder for temporary files. */
  readonly parent?: string;
}

export interface LoopFileSystem {
  readonly folder: string;
  remountReadOnly(): void;
  /** Unmounts and removes it; done at the end of the process at the latest. */
  remove(): void;
}

function tryRun(tool: string, args: readonly string[]): string | undefined {
  const { status, stderr, error } = spawnSync(tool, args, { encoding: "utf8" });
  if (error !== undefined) return `${tool} is not installed`;
  return status === 0 ? undefined : `${tool}: ${stderr.trim().split("\n")[0] ?? ""}`;
}

/** @returns the file system, or why there can be none here */
export function makeLoop(options: LoopOptions): LoopFileSystem | string {
  if (process.getuid?.() !== 0) return "only root can mount";
  const { type, sizeMiB, mkfsArgs = [], mountOptions = [] } = options;
  const base = mkdtempSync(join(options.parent ?? tmpdir(), "loop-"));
  const image = join(base, "image");
  const folder = mkdtempSync(join(base, "mounted-"));
  writeFileSync(image, "");
  truncateSync(image, sizeMiB * 1024 ** 2);
  const mountWith = ["loop", ...mountOptions].join(",");
  const problem =
    tryRun(`mkfs.${type}`, ["-q", ...mkfsArgs, image]) ??
    tryRun("mount", ["-t", type, "-o", mountWith, image, folder]);
  let isMounted = problem === undefined;
  const remove = (): void => {
    if (isMounted && tryRun("umount", [folder]) !== undefined) tryRun("umount", ["-l", folder]);
    isMounted = false;
    rmSync(base, { recursive: true, force: true });
  };
  if (problem !== undefined) {
    remove();
    return problem;
  }
  process.once("exit", remove);
  return {
    folder,
    remountReadOnly: () => tryRun("mount", ["-o", "remount,ro", folder]),
    remove: () => {
      process.removeListener("exit", remove);
      remove();
    },
  };
}

/** Why none of this kind can be had here, or false. It is tried out. */
export function loopMissing(options: LoopOptions): string | false {
  const loop = makeLoop(options);
  if (typeof loop === "string") return `no ${options.type} on a loop device: ${loop}`;
  loop.remove();
  return false;
}
