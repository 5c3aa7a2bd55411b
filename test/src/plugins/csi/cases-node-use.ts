/** Volumes in use: their data, their group, their size, and many calls at once. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { spawnSync } from "node:child_process";
import { readMountTable } from "@libstorage/client/host";
import type { World } from "./world.js";
import { blockCap, cap, GIB } from "./world.js";
import { nodeRequests } from "./node-requests.js";

export function nodeUseCases(world: () => World): void {
  const { stageRequest, publishRequest, ready } = nodeRequests(world);

  it("data outlives unpublishing, unstaging and the next node's turn", async () => {
    const { volumeId, staging } = await world().staged();
    const target = await world().publish(volumeId, staging);
    writeFileSync(join(target, "kept"), "yes");
    await world().call("NodeUnpublishVolume", { volumeId, targetPath: target });
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
    const nodeId = await world().nodeID();
    await world().call("ControllerUnpublishVolume", { volumeId, nodeId });
    await world().publishTo(volumeId, nodeId);
    await world().call("NodeStageVolume", stageRequest(volumeId, staging));
    assert.equal(readFileSync(join(staging, "kept"), "utf8"), "yes");
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
  });

  it("a clone and a restored snapshot have the data of their source", async (t) => {
    if (!(await world().controllerCan("CREATE_DELETE_SNAPSHOT")))
      return t.skip("the service has no snapshots");
    const { volumeId, staging } = await world().staged();
    writeFileSync(join(staging, "file"), "then");
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
    const { snapshotId } = await world().snapshot(volumeId);
    for (const [volumeContentSource, size] of [
      [{ snapshot: { snapshotId } }, 1],
      [{ snapshot: { snapshotId } }, 2],
      [{ volume: { volumeId } }, 1],
      [{ volume: { volumeId } }, 2],
    ] as const) {
      const capacityRange = { requiredBytes: size * GIB };
      const copy = await world().staged(world().cap(), { volumeContentSource, capacityRange });
      assert.equal(readFileSync(join(copy.staging, "file"), "utf8"), "then");
    }
  });

  it("volume_mount_group: the volume's files belong to the group, old and new", async () => {
    const capability = cap("SINGLE_NODE_WRITER", { volumeMountGroup: "4242" });
    const { volumeId, staging } = await world().staged();
    mkdirSync(join(staging, "sub"), { mode: 0o700 });
    writeFileSync(join(staging, "sub/old"), "", { mode: 0o600 });
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
    await world().call(
      "NodeStageVolume",
      stageRequest(volumeId, staging, { volumeCapability: capability }),
    );
    for (const path of ["", "sub", "sub/old"]) {
      const { gid, mode } = statSync(join(staging, path));
      assert.equal(gid, 4242, path);
      assert.equal(mode & 0o060, 0o060, path);
    }
    writeFileSync(join(staging, "sub/new"), "");
    assert.equal(statSync(join(staging, "sub/new")).gid, 4242);
  });

  it("mount flags of a mount are kept", async () => {
    const capability = cap("SINGLE_NODE_WRITER", { mountFlags: ["noatime", "nosuid,nodev"] });
    const { staging } = await world().staged(capability);
    const top = (await readMountTable()).findLast(({ mountPoint }) => mountPoint === staging);
    for (const flag of ["noatime", "nosuid", "nodev"])
      assert.ok(top?.opts.split(",").includes(flag), `${flag}: ${top?.opts}`);
  });

  // ---- stats, expansion

  it("NodeGetVolumeStats tells bytes and how the volume is, staged and published", async () => {
    const { volumeId, staging } = await world().staged();
    const target = await world().publish(volumeId, staging);
    for (const volumePath of [staging, target]) {
      const { usage, volumeCondition } = await world().call("NodeGetVolumeStats", {
        volumeId,
        volumePath,
      });
      const bytes = usage.find((one: { unit: string }) => one.unit === "BYTES");
      assert.ok(bytes.total > 0 && bytes.used >= 0 && bytes.available >= 0);
      assert.equal(volumeCondition.abnormal, false);
      assert.notEqual(volumeCondition.message, "");
    }
  });

  it("NodeGetVolumeStats without a volume or a path is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "NodeGetVolumeStats", { volumePath: "some/path" });
    await world().fails("INVALID_ARGUMENT", "NodeGetVolumeStats", { volumeId: "x" });
  });

  it("NodeGetVolumeStats of what is not there, or not at that path, is NOT_FOUND", async () => {
    await world().fails("NOT_FOUND", "NodeGetVolumeStats", {
      volumeId: "fake-vol-id",
      volumePath: "some/path",
    });
    const { volumeId, staging } = await world().staged();
    await world().publish(volumeId, staging);
    for (const volumePath of ["some/path", "/tmp", world().folder])
      await world().fails("NOT_FOUND", "NodeGetVolumeStats", { volumeId, volumePath });
  });

  it("NodeGetVolumeStats says what is wrong with a volume that has become read-only", async () => {
    const { volumeId, staging } = await world().staged();
    assert.equal(spawnSync("mount", ["-o", "remount,bind,ro", staging]).status, 0);
    const { volumeCondition } = await world().call("NodeGetVolumeStats", {
      volumeId,
      volumePath: staging,
    });
    assert.equal(volumeCondition.abnormal, true);
    assert.match(volumeCondition.message, /read-only/);
  });

  it("NodeExpandVolume without a volume or a path is INVALID_ARGUMENT, of what is not there NOT_FOUND", async () => {
    await world().fails("INVALID_ARGUMENT", "NodeExpandVolume", { volumePath: "/x" });
    await world().fails("INVALID_ARGUMENT", "NodeExpandVolume", { volumeId: "x" });
    await world().fails("NOT_FOUND", "NodeExpandVolume", {
      volumeId: "fake-vol-id",
      volumePath: "some/path",
    });
  });

  it("NodeExpandVolume to what the volume does not have is OUT_OF_RANGE", async (t) => {
    if (!(await world().controllerCan("EXPAND_VOLUME")))
      return t.skip("the service does not expand volumes");
    const capability = world().growable();
    const { volumeId, staging } = await world().staged(capability, {
      capacityRange: { requiredBytes: 2 * GIB },
    });
    const request = { volumeId, volumePath: staging };
    for (const [capacityRange, why] of [
      [{ requiredBytes: 2 * GIB + 1 }, /fewer than required_bytes .* ControllerExpandVolume/],
      [{ limitBytes: 2 * GIB - 1 }, /more than limit_bytes/],
    ] as const)
      assert.match(
        await world().fails("OUT_OF_RANGE", "NodeExpandVolume", { ...request, capacityRange }),
        why,
      );
    const capacityRange = { requiredBytes: GIB + 1, limitBytes: 2 * GIB };
    const reply = await world().call("NodeExpandVolume", { ...request, capacityRange });
    assert.equal(reply.capacityBytes, 2 * GIB);
  });

  it("NodeExpandVolume with a capability that the volume does not have is INVALID_ARGUMENT", async (t) => {
    if (!(await world().controllerCan("EXPAND_VOLUME")))
      return t.skip("the service does not expand volumes");
    const capability = world().growable();
    const { volumeId, staging } = await world().staged(capability);
    const request = { volumeId, volumePath: staging };
    for (const volumeCapability of [
      blockCap(),
      { mount: {}, accessMode: { mode: "UNKNOWN" } },
      { accessMode: { mode: "SINGLE_NODE_WRITER" } },
    ])
      await world().fails("INVALID_ARGUMENT", "NodeExpandVolume", {
        ...request,
        volumeCapability,
      });
    await world().call("NodeExpandVolume", { ...request, volumeCapability: capability });
  });

  it("a volume grows while it is published", async (t) => {
    if (!(await world().controllerCan("EXPAND_VOLUME")))
      return t.skip("the service does not expand volumes");
    const capability = world().growable();
    const { volumeId, staging } = await world().staged(capability);
    const target = await world().publish(volumeId, staging, { volumeCapability: capability });
    const capacityRange = { requiredBytes: 2 * GIB };
    const reply = await world().call("ControllerExpandVolume", { volumeId, capacityRange });
    assert.equal(reply.capacityBytes, 2 * GIB);
    for (let time = 0; time < 2; time += 1) {
      const grown = await world().call("NodeExpandVolume", {
        volumeId,
        volumePath: target,
        capacityRange,
      });
      assert.equal(grown.capacityBytes, 2 * GIB);
    }
    assert.deepEqual((await world().mounts()).toSorted(), [staging, target].toSorted());
  });

  // ---- several at once

  it("calls for one volume at once are done or ABORTED, with what is running", async () => {
    const volumeId = await ready();
    const staging = world().stagingPath();
    const results = await Promise.allSettled(
      Array.from({ length: 6 }, () =>
        world().call("NodeStageVolume", stageRequest(volumeId, staging)),
      ),
    );
    assert.ok(results.some(({ status }) => status === "fulfilled"));
    for (const one of results)
      if (one.status === "rejected") {
        assert.equal(one.reason.code, "ABORTED");
        assert.match(one.reason.message, /NodeStageVolume has been running/);
      }
    assert.deepEqual(await world().mounts(), [staging]);
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
  });

  it("the whole life of a volume, each call five times", async () => {
    const five = async (name: string, request: object): Promise<void> => {
      for (let time = 0; time < 5; time += 1) await world().call(name, request);
    };
    const name = `life-${process.pid}`;
    const volumeCapability = world().cap();
    const request = {
      name,
      volumeCapabilities: [volumeCapability],
      capacityRange: { requiredBytes: GIB },
    };
    await five("CreateVolume", request);
    const { volumeId } = (await world().call("CreateVolume", request)).volume;
    const nodeId = await world().nodeID();
    const staging = world().stagingPath();
    const targetPath = world().targetPath();
    await five("ControllerPublishVolume", { volumeId, nodeId, volumeCapability });
    await five("NodeStageVolume", stageRequest(volumeId, staging));
    await five("NodePublishVolume", publishRequest({ volumeId, staging }, targetPath));
    await five("NodeGetVolumeStats", { volumeId, volumePath: targetPath });
    await five("NodeUnpublishVolume", { volumeId, targetPath });
    await five("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
    await five("ControllerUnpublishVolume", { volumeId, nodeId });
    await five("DeleteVolume", { volumeId });
  });
}
