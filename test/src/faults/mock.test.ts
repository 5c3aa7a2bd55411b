/**
 * The fault run over mock, whose memory stands for a backend that outlives the server: every call of the
 * driver is a door of its own.
 */
import { mkdir } from "node:fs/promises";
import { after, describe } from "node:test";
import { join } from "node:path";
import { GIB } from "@libstorage/model";
import { DRIVERS, SILENT, openExec, openFiles } from "@libstorage/server";
import type { DriverModule, FaultPlan, OpContext } from "@libstorage/server";
import { makeScratch } from "./folders.js";
import { operationsOn } from "./operations.js";
import { faultSuite } from "./suite.js";
import { stateOf } from "./listed.js";
import { HOST_A, SERVICE, caller, openWorld } from "./world.js";
import type { World } from "./world.js";

const scratch = makeScratch("mock");
const signal = new AbortController().signal;
const CONTEXT: OpContext = {
  signal,
  log: SILENT,
  exec: openExec({ log: SILENT }),
  files: openFiles(),
  progress: () => {},
};
const CHANGES = new Set([
  "volumeCreate",
  "volumeRemove",
  "volumeAttach",
  "volumeDetach",
  "volumeCopy",
  "volumeExpand",
  "volumeRevert",
  "volumeUpdate",
  "snapshotCreate",
  "snapshotRemove",
  "snapshotCopy",
  "volumeCreateFromSnapshot",
]);
let folders = 0;

type Method = (...args: readonly unknown[]) => Promise<unknown>;

/** The same object, whose changes pass the plan. */
function guarded<T extends object>(object: T, plan: FaultPlan): T {
  return new Proxy(object, {
    get(target, name) {
      const member = Reflect.get(target, name, target) as unknown;
      if (name === "snapshots" || name === "reverts") return guarded(member as object, plan);
      if (typeof member !== "function") return member;
      const method = (member as Method).bind(target);
      if (!CHANGES.has(String(name))) return method;
      return (...args: readonly unknown[]) => {
        const { signal: own } = args.at(-1) as OpContext;
        return plan.pass({ door: "driver", what: String(name) }, own, () => method(...args));
      };
    },
  });
}

/** An empty mock with two volumes, one of them held, and a snapshot. */
async function mockWorld(): Promise<World> {
  folders += 1;
  const folder = join(scratch.path, String(folders));
  await mkdir(join(folder, "journal"), { recursive: true });
  const config = { seed: false, delayMs: 0 };
  const context = { ...CONTEXT, service: SERVICE, libFolder: folder };
  const memory = await DRIVERS.mock.open(config, context);
  const open: World["open"] = (faults) => {
    const driver = faults === undefined ? memory : guarded(memory, faults);
    const module: DriverModule = { ...DRIVERS.mock, open: async () => driver };
    return openWorld(folder, faults, module, config);
  };
  const storage = await open();
  const service = storage.service(SERVICE);
  for (const name of ["free", "held"])
    await service.volumeCreate({ name, sizeBytes: 8 * GIB, fields: {} }, caller());
  await service.volumeAttach("vol-005", { to: HOST_A, deviceName: "", force: false }, caller());
  await service.volumeSnapshot("vol-004", { name: "snapshot", fields: {} }, caller());
  await storage.close();
  return { folder, open, read: () => stateOf(memory, CONTEXT) };
}

describe("faults in mock", () => {
  after(() => scratch.remove());
  faultSuite({
    name: "mock",
    operations: operationsOn({ free: "vol-004", held: "vol-005", snapshot: "snap-004" }),
    make: mockWorld,
    leastCases: 200,
  });
});
