/** The fault run over the NFS exporter's commands, with the tables of exports(5) and mounts, and no NFS server. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import type { InstanceID } from "@libstorage/model";
import { DRIVERS, EXPORTERS, KernelServer, NfsExporter } from "@libstorage/server";
import type { ExporterModule, FaultPlan, Storage } from "@libstorage/server";
import * as v from "valibot";
import { inPrivateHost, missing } from "../exporters/private-host.js";
import { makeScratch } from "./folders.js";
import { operationsOn } from "./operations.js";
import { faultSuite } from "./suite.js";
import {
  FREE,
  HELD,
  SERVICE,
  SNAPSHOT,
  caller,
  openWorld,
  prepareWorld,
  readWorld,
} from "./world.js";
import type { World, WorldState } from "./world.js";

function far(id: string, last: number): InstanceID {
  const facts = {
    hostName: id,
    bootID: `0b0e0a1c-5a5b-4c5d-8e8f-00000000000${last}`,
    addresses: [`10.77.0.${last}`, `fd00::${last}`],
  };
  return { id, driver: "vfs", service: "", metadata: facts };
}

const A = far("host-a", 2);
const B = far("host-b", 3);

/** The rest of the operations has nothing to do with exports. */
const EXPORTING = new Set(["attach", "preempting attach", "detach", "forced remove"]);

interface RecordOnDisk {
  readonly attachments?: readonly { readonly deviceName: string }[];
}

function pathsInRecords(folder: string, state: WorldState): string[] {
  return [...state]
    .filter(([key]) => key.startsWith("volume "))
    .flatMap(([, { id }]) => {
      const text = readFileSync(join(folder, "root/vol", `${id}.json`), "utf8");
      return (JSON.parse(text) as RecordOnDisk).attachments ?? [];
    })
    .map(({ deviceName }) => deviceName.replace(/^.*:(?=\/)/, ""))
    .toSorted();
}

/**
 * Nothing is exported or mounted that no record names; when `isWhole`, all that they name is. A cut that failed
 * may have gone some way: the record stays, and the next start, or the next try, decides.
 */
function checkExports(folder: string, state: WorldState, isWhole: boolean): void {
  const wanted = pathsInRecords(folder, state);
  const check = (found: readonly string[], all: readonly string[], what: string): void => {
    if (isWhole) assert.deepEqual(found.toSorted(), all, what);
    for (const path of found) assert.ok(wanted.includes(path), `${what}: ${path} is in no record`);
  };
  const isOurs = (path: string): boolean => path.startsWith(`${folder}/shares/`);
  const first = (line: string): string => line.split(/\s/)[0] ?? "";
  const table = execFileSync("exportfs", ["-s"], { encoding: "utf8" }).split("\n").map(first);
  check(
    table.filter(isOurs),
    wanted.flatMap((path) => [path, path]),
    "the exports",
  );
  const mounts = readFileSync("/proc/mounts", "utf8").split("\n");
  const points = mounts.map((line) => line.split(" ")[1] ?? "").filter(isOurs);
  check(points, wanted, "the mounts");
  const file = join(folder, "ours.exports");
  const named = existsSync(file) ? readFileSync(file, "utf8").split("\n").map(first) : [];
  check(named.filter(isOurs), wanted, "the file of exports");
}

function exporterIn(folder: string): { module: ExporterModule; config: unknown } {
  const shares = join(folder, "shares", SERVICE);
  const config = v.parse(EXPORTERS.nfs.config, {
    folder: join(folder, "shares"),
    networks: ["10.77.0.0/24", "fd00::/64"],
  });
  type Config = ConstructorParameters<typeof KernelServer>[0];
  const open = async (): Promise<NfsExporter> => {
    const places = { folder: shares, exportsFile: join(folder, "ours.exports") };
    const server = new KernelServer(config as Config, { ...places, unavailable: () => undefined });
    return new NfsExporter(config as Config, SERVICE, shares, server);
  };
  return { module: { ...EXPORTERS.nfs, open }, config };
}

inPrivateHost(
  import.meta.url,
  { name: "faults in NFS exports", skip: missing("exportfs"), limitMs: 840_000 },
  () => {
    const scratch = makeScratch("nfs-faults");
    const template = join(scratch.path, "template");
    let folders = 0;

    const open = (folder: string, faults?: FaultPlan): Promise<Storage> => {
      const config = { root: join(folder, "root"), quota: "off" };
      return openWorld(folder, faults, DRIVERS.vfs, config, exporterIn(folder));
    };

    const nfsWorld = async (): Promise<World> => {
      folders += 1;
      const folder = join(scratch.path, `case-${folders}`);
      await cp(template, folder, { recursive: true, verbatimSymlinks: true });
      const storage = await open(folder);
      const request = { to: A, deviceName: "", force: false };
      await storage.service(SERVICE).volumeAttach(HELD, request, caller());
      await storage.close();
      const read = async (): Promise<WorldState> => {
        const state = readWorld(folder);
        checkExports(folder, state, false);
        return state;
      };
      const openWhole = async (faults?: FaultPlan): Promise<Storage> => {
        const opened = await open(folder, faults);
        if (faults === undefined) checkExports(folder, readWorld(folder), true);
        return opened;
      };
      return { folder, open: openWhole, read };
    };

    describe("faults in NFS exports", () => {
      before(async () => {
        await prepareWorld(template);
        const storage = await openWorld(template);
        const holder = { id: "host-a", driver: "vfs", service: "" };
        await storage.service(SERVICE).volumeDetach(HELD, holder, false, caller());
        await storage.close();
      });
      after(async () => {
        // What was tried once without any fault is still exported.
        for (const line of readFileSync("/proc/mounts", "utf8").split("\n")) {
          const point = line.split(" ")[1] ?? "";
          if (point.startsWith(`${scratch.path}/`)) execFileSync("umount", [point]);
        }
        await scratch.remove();
      });

      faultSuite({
        name: "nfs",
        operations: operationsOn({ free: FREE, held: HELD, snapshot: SNAPSHOT }, A, B).filter(
          ({ name }) => EXPORTING.has(name),
        ),
        make: nfsWorld,
        depth: { modes: ["fail", "lost-answer", "kill-after"], further: [] },
        leastCases: 150,
      });
    });
  },
);
