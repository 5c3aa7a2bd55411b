/** The fault run over btrfs, on a loop device. What takes back and recovers is as for vfs. */
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync } from "node:fs";
import { copyFile, cp, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { promisify } from "node:util";
import { DRIVERS } from "@libstorage/server";
import type { FaultPlan, Storage } from "@libstorage/server";
import { btrfsMissing, makeBtrfs } from "../drivers/btrfs-loop.js";
import type { LoopFileSystem } from "../loop.js";
import { makeScratch } from "./folders.js";
import { operationsOn } from "./operations.js";
import { faultSuite } from "./suite.js";
import { openWorld, prepareWorld, readWorld } from "./world.js";
import type { World } from "./world.js";

const execute = promisify(execFile);
const scratch = makeScratch("btrfs-faults");
const template = join(scratch.path, "template");
let loop: LoopFileSystem | undefined;
let folders = 0;

const open = (folder: string, faults?: FaultPlan): Promise<Storage> =>
  openWorld(folder, faults, DRIVERS.btrfs, { root: join(folder, "root"), quota: "qgroup" });

/** A new folder on the loop device, to which a world's root leads: its journal stays where it is quick. */
async function linkRoot(folder: string): Promise<void> {
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

async function btrfsWorld(): Promise<World> {
  folders += 1;
  const folder = join(scratch.path, `case-${folders}`);
  await linkRoot(folder);
  await copyShelf(join(template, "root/vol"), join(folder, "root/vol"), []);
  await copyShelf(join(template, "root/snap"), join(folder, "root/snap"), ["-r"]);
  await cp(join(template, "journal"), join(folder, "journal"), { recursive: true });
  return {
    folder,
    open: (faults) => open(folder, faults),
    read: async () => readWorld(folder),
  };
}

describe("faults in btrfs", { skip: btrfsMissing("qgroup") }, () => {
  before(async () => {
    loop = makeBtrfs();
    await linkRoot(template);
    await prepareWorld(template, () => open(template));
  });
  after(async () => {
    await scratch.remove();
    loop?.remove();
  });

  faultSuite({
    name: "btrfs",
    operations: operationsOn({
      free: "btrfs-000",
      held: "btrfs-001",
      snapshot: "btrfs-000-000",
    }),
    make: btrfsWorld,
    depth: { modes: ["fail", "lost-answer", "kill-after"], further: [] },
    leastCases: 200,
  });
});
