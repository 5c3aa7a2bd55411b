/** The fault run over lvm-iscsi, on volume groups in memory: every command and every journal entry. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, describe } from "node:test";
import { GIB } from "@libstorage/model";
import { DRIVERS } from "@libstorage/server";
import type { DriverModule, Storage } from "@libstorage/server";
import { contextOf } from "../conformance/fixture.js";
import { openOver } from "../drivers/lvm-fake.js";
import { VolumeGroupModel } from "../drivers/lvm-model.js";
import { makeScratch } from "./folders.js";
import { stateOf } from "./listed.js";
import { operationsOn } from "./operations.js";
import type { Operation } from "./operations.js";
import { faultSuite } from "./suite.js";
import { HOST_A, SERVICE, caller, openWorld } from "./world.js";
import type { World, WorldState } from "./world.js";

const LOCKS = "/run/lock/libstorage/lvm-iscsi";
const scratch = makeScratch("lvm-faults");
const groups: string[] = [];

function configOf(volumeGroup: string, keys: object): object {
  return {
    volumeGroup,
    prefix: "lvm-",
    wipe: "none",
    defaultSize: "1G",
    snapshotPercent: 100,
    watchSeconds: 3600,
    pool: { warnAt: 80, extendAt: 85, refuseAt: 92, suspendAt: 97, checkSeconds: 600 },
    ...keys,
  };
}

async function fill(storage: Storage): Promise<void> {
  const service = storage.service(SERVICE);
  for (const name of ["free", "held"])
    await service.volumeCreate({ name, sizeBytes: 8 * GIB, fields: {} }, caller());
  await service.volumeAttach("lvm-001", { to: HOST_A, deviceName: "", force: false }, caller());
  await service.volumeSnapshot("lvm-000", { name: "snapshot", fields: {} }, caller());
  await storage.close();
}

/** A removed volume, which is there for its snapshot alone. */
async function fillRemoved(storage: Storage): Promise<void> {
  const service = storage.service(SERVICE);
  const wanted = { name: "gone", sizeBytes: 8 * GIB, fields: {} };
  const { id } = await service.volumeCreate(wanted, caller());
  await service.volumeSnapshot(id, { name: "last", fields: {} }, caller());
  await service.volumeRemove(id, false, caller());
  await storage.close();
}

interface Ground {
  readonly thinPool?: string;
  readonly wipe?: "discard" | "zero";
  readonly filling?: typeof fill;
}

async function lvmWorld({ filling = fill, ...keys }: Ground): Promise<World> {
  // Each has a group of its own, since they run at the same time.
  const group = `faults${process.pid}-${groups.length}`;
  groups.push(group);
  const folder = join(scratch.path, group);
  await mkdir(join(folder, "journal"), { recursive: true });
  const model = new VolumeGroupModel(group, "pool");
  const config = configOf(group, keys);
  const module: DriverModule = {
    ...DRIVERS["lvm-iscsi"],
    open: (_config, context) => openOver(model, config, context),
  };
  const open: World["open"] = (faults) => openWorld(folder, faults, module, config);
  await filling(await open());
  const read = async (): Promise<WorldState> => {
    const driver = await openOver(model, config, contextOf());
    const state = await stateOf(driver, contextOf());
    await driver.close();
    const left = model
      .names()
      .filter((name) => /\.(?:still|next|old\d+)$/.test(name) && !model.isKeptFor(name));
    const over = [...left, ...model.over()];
    if (over.length > 0) throw new Error(`left over: ${over.join(", ")}`);
    return state;
  };
  return { folder, open, read };
}

const isRoot = process.getuid?.() === 0;
const skip = isRoot ? false : "only root may lock a part of a volume group, in /run/lock";
const OPERATIONS = operationsOn({ free: "lvm-000", held: "lvm-001", snapshot: "lvm-000-000" });
/** Those that are not done as with a thin pool. */
const THICK = new Set(["copy", "snapshot", "snapshot copy", "revert", "remove", "snapshot remove"]);
const LAST: Operation = {
  name: "remove the last snapshot of a removed volume",
  run: (service, by) => service.snapshotRemove("lvm-000-000", by),
};
/** Those that take something away. */
const WIPED = new Set(["copy", "remove", "snapshot remove"]);
const DEPTH = { modes: ["fail", "lost-answer", "kill-after"], further: [] } as const;

describe("faults in lvm-iscsi", { skip }, () => {
  after(async () => {
    await scratch.remove();
    for (const group of groups)
      await rm(join(LOCKS, `${group}.lvm-`), { recursive: true, force: true });
  });
  describe("thin", () => {
    faultSuite({
      name: "lvm-iscsi, thin",
      operations: OPERATIONS,
      make: () => lvmWorld({ thinPool: "pool" }),
      depth: DEPTH,
      leastCases: 140,
    });
  });
  describe("thick", () => {
    faultSuite({
      name: "lvm-iscsi, thick",
      operations: OPERATIONS.filter(({ name }) => THICK.has(name)),
      make: () => lvmWorld({}),
      depth: DEPTH,
      leastCases: 80,
    });
  });
  describe("thick, of which only a snapshot is left", () => {
    faultSuite({
      name: "lvm-iscsi, a removed volume",
      operations: [LAST],
      make: () => lvmWorld({ filling: fillRemoved }),
      depth: DEPTH,
      leastCases: 10,
    });
  });
  for (const wipe of ["discard", "zero"] as const)
    describe(`thick, wiped: ${wipe}`, () => {
      faultSuite({
        name: `lvm-iscsi, wiped (${wipe})`,
        operations: OPERATIONS.filter(({ name }) => WIPED.has(name)),
        make: () => lvmWorld({ wipe }),
        depth: DEPTH,
        leastCases: 30,
      });
    });
  describe("thin, wiped: zero", () => {
    faultSuite({
      name: "lvm-iscsi, thin, wiped (zero)",
      operations: OPERATIONS.filter(({ name }) => name === "remove" || name === "snapshot remove"),
      make: () => lvmWorld({ thinPool: "pool", wipe: "zero" }),
      depth: DEPTH,
      leastCases: 20,
    });
  });
});
