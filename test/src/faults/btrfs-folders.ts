/** Worlds whose root is on a btrfs: what outlives the server, copied for each case. */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync } from "node:fs";
import { copyFile, cp, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { LoopFileSystem } from "../loop.js";

const execute = promisify(execFile);

/** A new folder on the loop device, to which a world's root leads: its journal stays where it is quick. */
export async function linkRoot(folder: string, loop: LoopFileSystem | undefined): Promise<void> {
  await mkdir(folder);
  await symlink(mkdtempSync(join(loop?.folder ?? "", "root-")), join(folder, "root"));
}

async function copyShelf(from: string, to: string, flags: readonly string[]): Promise<void> {
  await mkdir(to, { mode: 0o700 });
  for (const name of readdirSync(from)) {
    const [source, target] = [join(from, name), join(to, name)];
    if (name.endsWith(".json")) await copyFile(source, target);
    else await execute("btrfs", ["subvolume", "snapshot", ...flags, source, target]);
  }
}

/** A copy of a prepared world, on the same file system. */
export async function copyBtrfsWorld(
  template: string,
  folder: string,
  loop: LoopFileSystem | undefined,
): Promise<void> {
  await linkRoot(folder, loop);
  await copyShelf(join(template, "root/vol"), join(folder, "root/vol"), []);
  await copyShelf(join(template, "root/snap"), join(folder, "root/snap"), ["-r"]);
  await cp(join(template, "journal"), join(folder, "journal"), { recursive: true });
}
