/** Groups of snapshots while something else happens to their volumes, or the server is slow. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { VolumeService } from "@libstorage/model";
import { startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { scratchParent } from "../../faults/folders.js";
import { openTestPlugin } from "./csi-client.js";
import type { Failed, Message, TestPlugin } from "./csi-client.js";
import { LOOP_DRIVER, loopDriver, loopServiceAt, loopServiceMissing } from "./loop-service.js";
import { cap, GIB, unique } from "./world.js";

const MOST_FROZEN_MS = 4_000;

describe("groups of snapshots, meanwhile", { skip: cannotMount() || loopServiceMissing() }, () => {
  const loops = loopDriver();
  let images: string;
  let server: TestServer;
  let plugin: TestPlugin;
  /** How many snapshots are made before the server holds; what it has begun it ends. */
  let free = Infinity;
  let held: (() => void)[] = [];
  let volumeIDs: string[];
  const stages = new Map<string, string>();

  const slow = (service: VolumeService): VolumeService => ({
    ...service,
    async volumeSnapshot(...args) {
      free -= 1;
      if (free < 0) await new Promise<void>((resolve) => held.push(resolve));
      return service.volumeSnapshot(...args);
    },
  });
  const open = (): Promise<TestPlugin> =>
    openTestPlugin({
      host: server.host,
      folder: join(server.folder, "host"),
      service: "devices",
      places: loops.devices().places,
      wrapService: slow,
      mostFrozenMs: MOST_FROZEN_MS,
    });
  const hold = (after: number): void => {
    free = after;
  };
  const release = (): void => {
    free = Infinity;
    for (const go of held.splice(0)) go();
  };
  const group = (name: string, parameters: object = {}): Promise<Message> =>
    plugin.call("CreateVolumeGroupSnapshot", { name, sourceVolumeIds: volumeIDs, parameters });
  const snapshots = async (): Promise<Message[]> =>
    (await plugin.call("ListSnapshots")).entries.map(({ snapshot }: Message) => snapshot);
  const removeGroups = async (): Promise<void> => {
    for (const one of new Set((await snapshots()).map((each) => each.groupSnapshotId)))
      await plugin.call("DeleteVolumeGroupSnapshot", { groupSnapshotId: one });
  };
  const notes = (): string[] => {
    const folder = join(server.folder, "host/var/lib/csi/csi.libstorage.org.groups");
    return existsSync(folder) ? readdirSync(folder) : [];
  };

  before(async () => {
    images = mkdtempSync(join(scratchParent(), "csi-groups-"));
    server = await startServer({
      drivers: { [LOOP_DRIVER]: loops.module },
      config: loopServiceAt(images),
    });
  });
  after(async () => {
    await server.close();
    rmSync(images, { recursive: true, force: true });
  });
  beforeEach(async () => {
    plugin = await open();
    const { nodeId } = await plugin.call("NodeGetInfo");
    volumeIDs = [];
    for (let count = 0; count < 2; count += 1) {
      const { volume } = await plugin.call("CreateVolume", {
        name: unique("pvc"),
        volumeCapabilities: [cap()],
        capacityRange: { requiredBytes: GIB },
      });
      const { volumeId } = volume;
      volumeIDs.push(volumeId);
      const request = { volumeId, nodeId, volumeCapability: cap() };
      await plugin.call("ControllerPublishVolume", request);
      const stagingTargetPath = join(server.folder, unique("staging"));
      mkdirSync(stagingTargetPath);
      stages.set(volumeId, stagingTargetPath);
      await plugin.call("NodeStageVolume", { ...request, stagingTargetPath });
    }
  });
  afterEach(async () => {
    release();
    try {
      await removeGroups();
      assert.deepEqual(notes(), [], "notes of groups left");
      for (const volumeId of volumeIDs) {
        const stagingTargetPath = stages.get(volumeId) ?? "";
        await plugin.call("NodeUnstageVolume", { volumeId, stagingTargetPath });
        await plugin.call("ControllerUnpublishVolume", { volumeId });
        await plugin.call("DeleteVolume", { volumeId });
      }
    } finally {
      stages.clear();
      await plugin.stop();
    }
  });

  it("no other call has one of their volumes, or the group", async () => {
    hold(1);
    const making = group("alone", { consistency: "each" });
    making.catch(() => {});
    await until(async () => held.length === 1 && (await snapshots()).length === 1);
    const [volumeId = ""] = volumeIDs;
    const { nodeId } = await plugin.call("NodeGetInfo");
    const staged = {
      volumeId,
      stagingTargetPath: stages.get(volumeId),
      volumeCapability: cap(),
      targetPath: join(server.folder, "never"),
      nodeId,
    };
    const [{ groupSnapshotId }] = (await snapshots()) as [Message];
    const found = await plugin.call("GetVolumeGroupSnapshot", { groupSnapshotId });
    assert.equal(found.groupSnapshot.readyToUse, false, "half of it is not good");
    for (const [call, request] of [
      ["NodeUnstageVolume", staged],
      ["NodePublishVolume", staged],
      ["ControllerUnpublishVolume", staged],
      ["DeleteVolume", staged],
      ["CreateSnapshot", { name: "s", sourceVolumeId: volumeId }],
      ["DeleteVolumeGroupSnapshot", { groupSnapshotId }],
    ] as const)
      await assert.rejects(
        plugin.call(call, request),
        (error: Failed) =>
          error.code === "ABORTED" && /CreateVolumeGroupSnapshot/.test(error.message),
        call,
      );
    release();
    const { groupSnapshot } = await making;
    assert.equal(groupSnapshot.readyToUse, true);
    for (const staging of stages.values()) writeFileSync(join(staging, "file"), "");
  });

  it("a snapshot and the removal of its volume exclude each other, two snapshots do not", async () => {
    const { volume } = await plugin.call("CreateVolume", {
      name: unique("pvc"),
      volumeCapabilities: [cap()],
    });
    const { volumeId } = volume;
    hold(0);
    const making = ["a", "b"].map((name) =>
      plugin.call("CreateSnapshot", { name: unique(name), sourceVolumeId: volumeId }),
    );
    await until(() => held.length === 2);
    await assert.rejects(plugin.call("DeleteVolume", { volumeId }), { code: "ABORTED" });
    release();
    for (const { snapshot } of await Promise.all(making))
      await plugin.call("DeleteSnapshot", { snapshotId: snapshot.snapshotId });
    await plugin.call("DeleteVolume", { volumeId });
  });

  it("what was cut after the file systems were thawed is removed, and made anew", async () => {
    hold(0);
    const making = group("late", { freeze: "true" });
    making.catch(() => {});
    await until(() => held.length === 2);
    // The limit must not go with the next collection of garbage.
    collectGarbage();
    // Nobody waits for the server with a frozen file system. A write waits for the thaw, in a process of its own.
    const [first = ""] = stages.values();
    const { status } = await ended(spawn("touch", [join(first, "written")], { stdio: "ignore" }));
    assert.equal(status, 0, "the file system is thawed in time");
    assert.equal(held.length, 2, "the server is at it still");
    release();
    await assert.rejects(making, { code: "DEADLINE_EXCEEDED" });
    assert.deepEqual(await snapshots(), [], "nothing of it is left");
    const { groupSnapshot } = await group("late", { freeze: "true" });
    assert.equal(groupSnapshot.snapshots.length, 2);
    assert.equal(groupSnapshot.readyToUse, true);
  });

  it("what a killed plugin left of a group is no good group", async () => {
    hold(0);
    const making = group("killed", { freeze: "true" });
    making.catch(() => {});
    await until(() => held.length === 2);
    assert.equal(notes().length, 1);
    const [note = ""] = notes();
    const file = join(server.folder, "host/var/lib/csi/csi.libstorage.org.groups", note);
    release();
    await making;
    const before = (await snapshots()).map(({ snapshotId }) => snapshotId);
    await plugin.stop(0);
    // As a kill in the middle leaves it, when the server ends what it has begun.
    writeFileSync(file, "");
    plugin = await open();
    const groupSnapshotId = note.replace(/\.open$/, "");
    const found = await plugin.call("GetVolumeGroupSnapshot", { groupSnapshotId });
    assert.equal(found.groupSnapshot.readyToUse, false);
    const { groupSnapshot } = await group("killed", { freeze: "true" });
    assert.equal(groupSnapshot.readyToUse, true);
    for (const { snapshotId } of groupSnapshot.snapshots) assert.ok(!before.includes(snapshotId));
  });

  it("a group that lost one is not ready", async () => {
    const { groupSnapshot } = await group("lost", { freeze: "true" });
    const { groupSnapshotId, snapshots: all } = groupSnapshot;
    const params = { service: "devices", snapshotID: all[0].snapshotId };
    await server.app.service.snapshotRemove(params, undefined, {});
    const found = await plugin.call("GetVolumeGroupSnapshot", { groupSnapshotId });
    assert.equal(found.groupSnapshot.snapshots.length, 1);
    assert.equal(found.groupSnapshot.readyToUse, false);
  });

  it("a file system that was left frozen is thawed before it is unmounted", async (t) => {
    const [volumeId = ""] = volumeIDs;
    const stagingTargetPath = stages.get(volumeId) ?? "";
    const folder = join(server.folder, "host/var/lib/csi/csi.libstorage.org");
    const record = join(folder, `${volumeId}.json`);
    // Another namespace keeps the mount, as containers do: the file system outlives its unmount here.
    const keeper = await namespace();
    if (keeper === undefined) return t.skip("unshare cannot make a mount namespace here");
    try {
      spawnSync("fsfreeze", ["--freeze", stagingTargetPath]);
      writeFileSync(
        record,
        readFileSync(record, "utf8").replace('"isFrozen":false', '"isFrozen":true'),
      );
      await plugin.call("NodeUnstageVolume", { volumeId, stagingTargetPath });
      const inside = ["-t", String(keeper.pid), "-m", "fsfreeze", "--unfreeze", stagingTargetPath];
      const thawed = spawnSync("nsenter", inside, { encoding: "utf8" });
      assert.match(thawed.stderr, /Invalid argument/, "it was thawed already");
    } finally {
      const inside = ["-t", String(keeper.pid), "-m", "umount", ...stages.values()];
      spawnSync("nsenter", inside);
      keeper.kill("SIGKILL");
    }
  });
});

function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
}

async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  for (let time = 0; time < 400; time += 1) {
    if (await isSo()) return;
    await sleep(50);
  }
  assert.fail("it did not come to that within 20 s");
}

function ended(child: ChildProcess): Promise<{ readonly status: number | null }> {
  return Promise.race([
    new Promise<{ status: number | null }>((resolve) => {
      child.once("exit", (status) => resolve({ status }));
    }),
    sleep(15_000, { status: null }, { ref: false }),
  ]);
}

/** A process with a mount namespace of its own. */
async function namespace(): Promise<ChildProcess | undefined> {
  const child = spawn("unshare", ["-m", "--propagation", "private", "sleep", "60"], {
    stdio: "ignore",
  });
  const isGone = new Promise<boolean>((resolve) => child.once("exit", () => resolve(true)));
  return (await Promise.race([isGone, sleep(300).then(() => false)])) ? undefined : child;
}
