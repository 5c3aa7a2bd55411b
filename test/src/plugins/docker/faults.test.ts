/**
 * Every call of the plugin, with a fault at every command and every request in turn: it fails, it is done
 * but nobody hears of it, or the plugin is killed before or after it. Then the same call is made again.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { makeFolder, run, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { scratchParent } from "../../faults/folders.js";
import { LOOP_DRIVER, loopDriver, loopServiceAt, loopServiceMissing } from "../csi/loop-service.js";
import type { FaultChildPlan } from "./fault-child.js";
import { FAULT_SETTINGS } from "./fault-settings.js";
import { FaultDoor } from "./fault-door.js";
import { mountsBelow, openPlugin, unmountBelow } from "./plugin-fixture.js";
import type { TestPlugin } from "./plugin-fixture.js";

const CHILD = fileURLToPath(new URL("fault-child.js", import.meta.url));
const MOST_POINTS = 60;

type Body = Readonly<Record<string, unknown>>;
type Step = readonly [operation: string, body: Body];

interface Case {
  readonly name: string;
  /** What was done before. */
  readonly before: readonly Step[];
  readonly call: Step;
  /** How many mounts there are after it. */
  readonly mounts: number;
  /** Names of the volumes and snapshots that are there after it. */
  readonly objects: readonly string[];
  /** What takes all away again. */
  readonly end: readonly Step[];
  /** At how many points there is something to fail, at least. */
  readonly points: number;
  /** Another host has the volume, and nobody asks it. */
  readonly isHeldElsewhere?: true;
  /** What changes nothing on this host cannot be cut off between two changes: only failures are tried. */
  readonly isLook?: true;
}

const create = (Name: string, Opts: Body = {}): Step => ["Create", { Name, Opts }];
const mount = (ID: string): Step => ["Mount", { Name: "vol", ID }];
const unmount = (ID: string): Step => ["Unmount", { Name: "vol", ID }];
const remove = (Name: string): Step => ["Remove", { Name }];
const SMALL = { size: "1" };

const CASES: readonly Case[] = [
  {
    name: "create",
    before: [],
    call: create("vol", SMALL),
    mounts: 0,
    objects: ["vol"],
    end: [remove("vol")],
    points: 4,
  },
  {
    name: "create a larger copy",
    before: [create("vol", SMALL)],
    call: create("copy", { from: "vol", size: "2" }),
    mounts: 0,
    objects: ["copy", "vol"],
    end: [remove("copy"), remove("vol")],
    points: 8,
  },
  {
    name: "create from a snapshot",
    before: [create("vol", SMALL), create("snap", { snapshot: "vol" })],
    call: create("back", { fromSnapshot: "snap" }),
    mounts: 0,
    objects: ["back", "snap", "vol"],
    end: [remove("back"), remove("snap"), remove("vol")],
    points: 6,
  },
  {
    name: "snapshot",
    before: [create("vol", SMALL)],
    call: create("snap", { snapshot: "vol" }),
    mounts: 0,
    objects: ["snap", "vol"],
    end: [remove("snap"), remove("vol")],
    points: 6,
  },
  {
    name: "resize under another name",
    before: [create("vol", SMALL)],
    call: create("large", { resize: "vol", size: "2" }),
    mounts: 0,
    objects: ["vol"],
    end: [remove("large"), remove("vol")],
    points: 6,
  },
  {
    name: "adopt",
    before: [create("vol", SMALL)],
    call: create("mine", { adopt: "vol" }),
    mounts: 0,
    objects: ["vol"],
    end: [remove("mine"), remove("vol")],
    points: 2,
  },
  {
    name: "adopt and grow",
    before: [create("vol", SMALL)],
    call: create("mine", { adopt: "vol", size: "2" }),
    mounts: 0,
    objects: ["vol"],
    end: [remove("mine"), remove("vol")],
    points: 4,
  },
  {
    name: "mount",
    before: [create("vol", SMALL)],
    call: mount("c1"),
    mounts: 1,
    objects: ["vol"],
    end: [unmount("c1"), remove("vol")],
    points: 8,
  },
  {
    name: "mount what another host has",
    before: [create("vol", SMALL)],
    call: mount("c1"),
    mounts: 1,
    objects: ["vol"],
    end: [unmount("c1"), remove("vol")],
    points: 8,
    isHeldElsewhere: true,
  },
  {
    name: "mount for a second container",
    before: [create("vol", SMALL), mount("c1")],
    call: mount("c2"),
    mounts: 1,
    objects: ["vol"],
    end: [unmount("c1"), unmount("c2"), remove("vol")],
    points: 6,
  },
  {
    name: "unmount for one of two",
    before: [create("vol", SMALL), mount("c1"), mount("c2")],
    call: unmount("c1"),
    mounts: 1,
    objects: ["vol"],
    end: [unmount("c2"), remove("vol")],
    // It writes a file, and asks and starts nothing.
    points: 0,
  },
  {
    name: "unmount for the last one",
    before: [create("vol", SMALL), mount("c1")],
    call: unmount("c1"),
    mounts: 0,
    objects: ["vol"],
    end: [remove("vol")],
    points: 6,
  },
  {
    name: "remove",
    before: [create("vol", SMALL)],
    call: remove("vol"),
    mounts: 0,
    objects: [],
    end: [],
    points: 4,
  },
  {
    name: "remove a snapshot",
    before: [create("vol", SMALL), create("snap", { snapshot: "vol" })],
    call: remove("snap"),
    mounts: 0,
    objects: ["vol"],
    end: [remove("vol")],
    points: 2,
  },
  {
    name: "look",
    before: [create("vol", SMALL), mount("c1")],
    call: ["Get", { Name: "vol" }],
    mounts: 1,
    objects: ["vol"],
    end: [unmount("c1"), remove("vol")],
    points: 4,
    isLook: true,
  },
  {
    name: "list",
    before: [create("vol", SMALL)],
    call: ["List", {}],
    mounts: 0,
    objects: ["vol"],
    end: [remove("vol")],
    points: 2,
    isLook: true,
  },
];

interface Harness {
  readonly name: string;
  readonly service: string;
  readonly driver: string;
  readonly skip: string | false;
  start(): Promise<TestServer>;
  places?(): NonNullable<FaultChildPlan["places"]>;
  /** What is left of the volumes when all are removed. */
  left?(): readonly string[];
  remove?(): void;
}

const loops = loopDriver();
let images = "";

const HARNESSES: readonly Harness[] = [
  {
    name: "folders",
    service: "vfs",
    driver: "vfs",
    skip: cannotMount(),
    start: () => startServer(),
  },
  {
    name: "devices",
    service: "devices",
    driver: LOOP_DRIVER,
    skip: cannotMount() || loopServiceMissing(),
    async start() {
      images = mkdtempSync(join(scratchParent(), "docker-loops-"));
      return startServer({
        drivers: { [LOOP_DRIVER]: loops.module },
        config: loopServiceAt(images),
      });
    },
    places: () => loops.devices().places,
    left: () => readdirSync(join(images, "images")),
    remove: () => rmSync(images, { recursive: true, force: true }),
  },
];

for (const harness of HARNESSES) faultSuite(harness);

function faultSuite(harness: Harness): void {
  const { service: name } = harness;
  describe(
    `the Docker plugin over ${harness.name} with a fault at every point`,
    { skip: harness.skip },
    () => {
      let server: TestServer;
      before(async () => {
        server = await harness.start();
      });
      after(async () => {
        await server.close();
        harness.remove?.();
      });

      async function objects(): Promise<readonly string[]> {
        const { service } = server.app;
        const volumes = await service.volumesByService({ service: name }, undefined, {});
        const snapshots = await service.snapshotsByService({ service: name }, undefined, {});
        return [...Object.values(volumes), ...Object.values(snapshots)]
          .map(({ name = "" }) => name)
          .toSorted();
      }

      async function attachments(): Promise<number> {
        const { service } = server.app;
        const volumes = await service.volumesByService(
          { service: name, attachments: 1 },
          undefined,
          {},
        );
        return Object.values(volumes).reduce((sum, one) => sum + (one.attachments?.length ?? 0), 0);
      }

      /** So that one case's failure is not the next one's. */
      async function removeAll(): Promise<void> {
        const { service } = server.app;
        const volumes = await service.volumesByService({ service: name }, undefined, {});
        for (const volumeID of Object.keys(volumes))
          await service.volumeRemove({ service: name, volumeID, force: true }, undefined, {});
        const snapshots = await service.snapshotsByService({ service: name }, undefined, {});
        for (const snapshotID of Object.keys(snapshots))
          await service.snapshotRemove({ service: name, snapshotID }, undefined, {});
      }

      /** As another host does that has the only volume. */
      async function holdElsewhere(driver: string): Promise<void> {
        const { service } = server.app;
        const [volumeID = ""] = Object.keys(
          await service.volumesByService({ service: name }, undefined, {}),
        );
        const other = { id: "another-host", driver, service: "" };
        const caller = { instanceIDs: [other] };
        await service.volumeAttach({ service: name, volumeID }, {}, caller);
      }

      const place = (): Pick<FaultChildPlan, "host" | "service" | "places"> => {
        const places = harness.places?.();
        return { host: server.host, service: name, ...(places !== undefined && { places }) };
      };
      const open = (folder: string, door?: FaultDoor): Promise<TestPlugin> => {
        const doors = door && { exec: door.exec, wrapService: door.wrapService };
        return openPlugin({ ...place(), folder, settings: FAULT_SETTINGS, ...doors });
      };

      /** One host with one fault in its life. @returns whether there was a point left to fail */
      async function once(
        one: Case,
        fault: (folder: string) => Promise<boolean>,
      ): Promise<boolean> {
        const folder = await makeFolder();
        try {
          const first = await open(folder);
          for (const [operation, body] of one.before) await first.ok(operation, body);
          await first.close();
          if (one.isHeldElsewhere === true) await holdElsewhere(harness.driver);
          const wasReached = await fault(folder);
          const again = await open(folder);
          const [operation, body] = one.call;
          await again.ok(operation, body);
          assert.deepEqual(await objects(), one.objects, "objects");
          assert.equal((await mountsBelow(folder)).length, one.mounts, "mounts");
          assert.equal(await attachments(), one.mounts, "attachments");
          for (const [ending, rest] of one.end) await again.ok(ending, rest);
          await again.close();
          assert.deepEqual(await objects(), [], "left objects");
          assert.deepEqual(await mountsBelow(folder), [], "left mounts");
          assert.deepEqual(harness.left?.() ?? [], [], "left images");
          const lib = join(folder, "var/lib");
          assert.deepEqual(await readdir(join(lib, "volumes")).catch(() => []), [], "left folders");
          for (const left of ["docker/libstorage/names", "docker/libstorage/create"])
            assert.deepEqual(await readdir(join(lib, left)).catch(() => []), [], `left in ${left}`);
          return wasReached;
        } finally {
          await unmountBelow(folder);
          await removeAll();
          await rm(folder, { recursive: true, force: true });
        }
      }

      async function everywhere(
        one: Case,
        fault: (folder: string, at: number) => Promise<boolean>,
      ): Promise<void> {
        for (let at = 1; at < MOST_POINTS; at += 1)
          try {
            if (await once(one, (folder) => fault(folder, at))) continue;
            assert.ok(at - 1 >= one.points, `only ${at - 1} points`);
            return;
          } catch (error) {
            throw new Error(`at point ${at}: ${String(error)}`, { cause: error });
          }
        assert.fail("it has no end");
      }

      for (const one of CASES) {
        it(`${one.name}: after a failure, the same call succeeds`, () =>
          everywhere(one, async (folder, at) => {
            const door = new FaultDoor();
            const plugin = await open(folder, door);
            await new Promise((resolve) => setTimeout(resolve, 20));
            door.arm({ mode: "fail", at });
            const [operation, body] = one.call;
            await plugin.call(operation, body);
            const { passed } = door;
            door.arm(undefined);
            await plugin.close();
            return passed >= at;
          }));

        if (one.isLook === true) continue;
        it(`${one.name}: after a kill, the same call succeeds`, () =>
          everywhere(one, async (folder, at) => {
            const [operation, body] = one.call;
            const plan: FaultChildPlan = { ...place(), folder, operation, body, at };
            const { code, stdout, stderr } = await run(CHILD, [JSON.stringify(plan)]);
            assert.ok(code === 0 || code === null, stderr);
            if (code === null) return true;
            assert.equal((JSON.parse(stdout) as { status: number }).status, 200, stdout);
            return false;
          }));
      }
    },
  );
}
