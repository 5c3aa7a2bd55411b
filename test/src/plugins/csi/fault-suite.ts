/**
 * Every call of the plugin, with a fault at every command and every request in turn: it fails, it is done but
 * nobody hears of it, or the plugin is killed before or after it. Then the same call is made again; or what
 * was begun is taken away. Nothing may be left.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { DriverModule } from "@libstorage/server";
import { makeFolder, run, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { FaultDoor } from "../docker/fault-door.js";
import { mountsBelow, unmountBelow } from "../docker/plugin-fixture.js";
import { openTestPlugin } from "./csi-client.js";
import type { TestPlugin, TestPluginOptions } from "./csi-client.js";
import { faultCases } from "./fault-cases.js";
import type { FaultCase, FaultContext, Step } from "./fault-cases.js";
import type { FaultChildPlan } from "./fault-child.js";

const CHILD = fileURLToPath(new URL("fault-child.js", import.meta.url));
const MOST_POINTS = 60;

export interface FaultHarness {
  readonly name: string;
  readonly service: string;
  readonly isBlock: boolean;
  readonly skip: string | false;
  configuration(): string;
  readonly drivers?: Readonly<Record<string, DriverModule>>;
  places?(): NonNullable<TestPluginOptions["places"]>;
  /** What the driver has on this host, besides its records. */
  left(server: TestServer): readonly string[];
  remove?(): void;
}

/** One host with one fault in its life. */
class Host {
  readonly options: TestPluginOptions;
  readonly context: FaultContext;

  private constructor(options: TestPluginOptions, isBlock: boolean, nodeId: string) {
    const { folder } = options;
    this.options = options;
    const [staging, target] = [join(folder, "staging"), join(folder, "target")];
    this.context = { isBlock, nodeId, staging, target, ids: new Map() };
  }

  /** After these steps. */
  static async after(
    steps: readonly Step[],
    options: TestPluginOptions,
    isBlock: boolean,
  ): Promise<Host> {
    const plugin = await openTestPlugin(options);
    try {
      const { nodeId } = await plugin.call("NodeGetInfo");
      const host = new Host(options, isBlock, nodeId);
      mkdirSync(host.context.staging);
      await host.take(plugin, steps);
      return host;
    } finally {
      await plugin.stop(0);
    }
  }

  async take(plugin: TestPlugin, steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      const [name, request] = step(this.context);
      const { volume, snapshot, groupSnapshot } = await plugin.call(name, request);
      const called = (request as { readonly name?: string }).name;
      const id = volume?.volumeId ?? snapshot?.snapshotId ?? groupSnapshot?.groupSnapshotId;
      if (called !== undefined && id !== undefined) this.context.ids.set(called, id);
    }
  }
}

type Fault = (host: Host, at: number) => Promise<boolean>;

async function failing(host: Host, call: Step, at: number): Promise<boolean> {
  const door = new FaultDoor();
  const { exec, wrapService } = door;
  const plugin = await openTestPlugin({ ...host.options, exec, wrapService });
  door.arm({ mode: "fail", at });
  await plugin.call(...call(host.context)).catch(() => {});
  const { passed } = door;
  door.arm(undefined);
  await plugin.stop(2_000);
  return passed >= at;
}

async function killed({ options, context }: Host, call: Step, at: number): Promise<boolean> {
  const [name, request] = call(context);
  const plan: FaultChildPlan = { ...options, name, request, at };
  const { code, stdout, stderr } = await run(CHILD, [JSON.stringify(plan)]);
  assert.ok(code === 0 || code === null, stderr);
  if (code === null) return true;
  assert.equal((JSON.parse(stdout) as { error?: string }).error, undefined, stdout);
  return false;
}

export function faultSuite(harness: FaultHarness): void {
  describe(`CSI with a fault at every point: ${harness.name}`, { skip: harness.skip }, () => {
    let server: TestServer;
    before(async () => {
      const { drivers } = harness;
      const config = harness.configuration();
      server = await startServer({ config, ...(drivers !== undefined && { drivers }) });
    });
    after(async () => {
      await server.close();
      harness.remove?.();
    });

    /** @returns whether there was a point left to fail */
    async function once(one: FaultCase, fault: Fault, at: number, gaveUp: boolean) {
      const folder = await makeFolder();
      const { service, isBlock } = harness;
      const places = harness.places?.();
      const options = { host: server.host, folder, service, ...(places && { places }) };
      try {
        const host = await Host.after(one.before, options, isBlock);
        const wasReached = await fault(host, at);
        // As after a restart.
        const again = await openTestPlugin(options);
        try {
          if (gaveUp && one.giveUp !== undefined) await host.take(again, one.giveUp);
          else {
            await host.take(again, [one.call]);
            assert.equal((await mountsBelow(folder)).length, one.mounts, "mounts");
            await host.take(again, one.end);
          }
          await nothingLeft(host, again);
        } finally {
          await again.stop(0);
        }
        return wasReached;
      } finally {
        await unmountBelow(folder);
        rmSync(folder, { recursive: true, force: true });
        await removeAll();
      }
    }

    async function nothingLeft({ options, context }: Host, plugin: TestPlugin): Promise<void> {
      const { entries: volumes } = await plugin.call("ListVolumes");
      const { entries: snapshots } = await plugin.call("ListSnapshots");
      assert.deepEqual([...volumes, ...snapshots], [], "left objects");
      assert.deepEqual(await mountsBelow(options.folder), [], "left mounts");
      const records = join(options.folder, "var/lib/csi/csi.libstorage.org");
      assert.deepEqual(existsSync(records) ? readdirSync(records) : [], [], "left records");
      assert.equal(existsSync(context.target), false, "the target is left");
      rmdirSync(context.staging);
      assert.deepEqual(harness.left(server), [], "left on the driver's side");
    }

    /** So that one case's failure is not the next one's. */
    async function removeAll(): Promise<void> {
      const { service } = server.app;
      const path = { service: harness.service };
      for (const volumeID of Object.keys(await service.volumesByService(path, undefined, {})))
        await service.volumeRemove({ ...path, volumeID, force: true }, undefined, {});
      for (const snapshotID of Object.keys(await service.snapshotsByService(path, undefined, {})))
        await service.snapshotRemove({ ...path, snapshotID }, undefined, {});
    }

    async function everywhere(one: FaultCase, fault: Fault, gaveUp = false): Promise<void> {
      for (let at = 1; at < MOST_POINTS; at += 1)
        try {
          if (await once(one, fault, at, gaveUp)) continue;
          assert.ok(at - 1 >= one.points, `only ${at - 1} points`);
          return;
        } catch (error) {
          throw new Error(`at point ${at}: ${String(error)}`, { cause: error });
        }
      assert.fail("it has no end");
    }

    for (const one of faultCases(harness)) {
      it(`${one.name}: after a failure, the same call succeeds`, () =>
        everywhere(one, (host, at) => failing(host, one.call, at)));
      if (one.giveUp !== undefined)
        it(`${one.name}: after a failure, what was begun is taken away`, () =>
          everywhere(one, (host, at) => failing(host, one.call, at), true));
      if (one.isLook === true) continue;
      it(`${one.name}: after a kill, the same call succeeds`, () =>
        everywhere(one, (host, at) => killed(host, one.call, at)));
      if (one.giveUp !== undefined)
        it(`${one.name}: after a kill, what was begun is taken away`, () =>
          everywhere(one, (host, at) => killed(host, one.call, at), true));
    }
  });
}
