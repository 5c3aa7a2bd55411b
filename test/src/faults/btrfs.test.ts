/** The fault run over btrfs, on a loop device. What takes back and recovers is as for vfs. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync } from "node:fs";
import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { DRIVERS } from "@libstorage/server";
import type { FaultPlan, ServiceSpec, Storage, StorageService } from "@libstorage/server";
import { btrfsMissing, makeBtrfs } from "../drivers/btrfs-loop.js";
import type { LoopFileSystem } from "../loop.js";
import { copyBtrfsWorld, linkRoot } from "./btrfs-folders.js";
import { contentOperations, readAll } from "./content.js";
import { makeScratch } from "./folders.js";
import { operationsOn } from "./operations.js";
import type { Operation } from "./operations.js";
import { faultSuite } from "./suite.js";
import { openWorld, prepareWorld, readWorld, SERVICE } from "./world.js";
import type { World } from "./world.js";

const execute = promisify(execFile);
const scratch = makeScratch("btrfs-faults");
const template = join(scratch.path, "template");
let loop: LoopFileSystem | undefined;
let otherLoop: LoopFileSystem | undefined;
let folders = 0;
/** What a volume holds, as a stream. */
let content: Buffer;

const open = (folder: string, faults?: FaultPlan): Promise<Storage> =>
  openWorld(folder, faults, DRIVERS.btrfs, { root: join(folder, "root"), quota: "qgroup" });

async function btrfsWorld(): Promise<World> {
  folders += 1;
  const folder = join(scratch.path, `case-${folders}`);
  await copyBtrfsWorld(template, folder, loop);
  return {
    folder,
    open: (faults) => open(folder, faults),
    read: async () => readWorld(folder),
  };
}

const SOURCE = "source";
const sourceOf = new WeakMap<StorageService, StorageService>();

/** Beside the usual service another one with the same volumes, to copy from. @param on holds its root */
async function pairWorld(on: LoopFileSystem | undefined): Promise<World> {
  const target = await btrfsWorld();
  const { folder } = target;
  const root = mkdtempSync(join(on?.folder ?? "", "source-"));
  await mkdir(join(root, "vol"));
  await mkdir(join(root, "snap"));
  const source = join(template, "root/vol");
  const record = "btrfs-000.json";
  await copyFile(join(source, record), join(root, "vol", record));
  const data = join(root, "vol/btrfs-000");
  await execute("btrfs", ["subvolume", "create", data]);
  await execute("cp", ["-a", "-T", join(source, "btrfs-000"), data]);
  const spec: ServiceSpec = {
    name: SOURCE,
    driver: DRIVERS.btrfs,
    config: { root, quota: "off" },
    settings: { shareable: false, uniqueNames: false },
  };
  const config = { root: join(folder, "root"), quota: "qgroup" };
  return {
    folder,
    open: async (faults) => {
      const storage = await openWorld(folder, faults, DRIVERS.btrfs, config, undefined, [spec]);
      sourceOf.set(storage.service(SERVICE), storage.service(SOURCE));
      return storage;
    },
    read: async () => {
      // What was on its way is removed beside the start.
      const left = (): string[] => readdirSync(root).filter((name) => name.startsWith(".tmp-"));
      for (let tries = 0; tries < 250 && left().length > 0; tries += 1) await sleep(20);
      assert.deepEqual(left(), []);
      assert.deepEqual(readdirSync(join(root, "vol")), ["btrfs-000", record]);
      return target.read();
    },
  };
}

const copyFrom = (name: string): Operation => ({
  name,
  run: (service, caller) => {
    const from = sourceOf.get(service);
    assert.ok(from !== undefined);
    return service.volumeCopyFrom(from, "btrfs-000", { name: "new", fields: {} }, caller);
  },
});

describe("faults in btrfs", { skip: btrfsMissing("qgroup") }, () => {
  before(async () => {
    loop = makeBtrfs();
    otherLoop = makeBtrfs();
    await linkRoot(template, loop);
    await prepareWorld(template, () => open(template));
    const storage = await open(template);
    content = await readAll(storage.service(SERVICE), "btrfs-000");
    await storage.close();
  });
  after(async () => {
    await scratch.remove();
    loop?.remove();
    otherLoop?.remove();
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

  faultSuite({
    name: "btrfs content",
    operations: contentOperations("btrfs-000", "btrfs-send", () => content),
    make: btrfsWorld,
    depth: { modes: ["fail", "lost-answer", "kill-after"], further: [] },
    leastCases: 30,
  });

  for (const [name, on, leastCases] of [
    ["copy from a service on the same file system", () => loop, 20],
    ["copy from a service on another file system", () => otherLoop, 50],
  ] as const)
    faultSuite({
      name,
      operations: [copyFrom(name)],
      make: () => pairWorld(on()),
      depth: { modes: ["fail", "lost-answer", "kill-after"], further: [] },
      leastCases,
    });
});
