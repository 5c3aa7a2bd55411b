/** The Node service: staging, publishing, and what stands in the way. */
import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { spawnSync } from "node:child_process";
import { readMountTable } from "@libstorage/client/host";
import type { World } from "./world.js";
import { blockCap, cap, GIB } from "./world.js";

export function nodeCases(world: () => World): void {
  const stageRequest = (
    volumeId: string,
    stagingTargetPath: string,
    more: object = {},
  ): object => ({
    volumeId,
    stagingTargetPath,
    volumeCapability: world().cap(),
    ...more,
  });
  const publishRequest = (
    { volumeId, staging }: { volumeId: string; staging: string },
    targetPath: string,
    more: object = {},
  ): object => ({ ...stageRequest(volumeId, staging), targetPath, ...more });

  /** A volume that this node may stage. */
  const ready = async (capability = world().cap()): Promise<string> => {
    const { volumeId } = await world().create({ volumeCapabilities: [capability] });
    await world().publishTo(volumeId, await world().nodeID(), { volumeCapability: capability });
    return volumeId;
  };

  // ---- what is missing or wrong

  it("NodeStageVolume without a volume, a path or a capability is INVALID_ARGUMENT", async () => {
    const volumeId = await ready();
    const path = world().stagingPath();
    for (const request of [
      { stagingTargetPath: path, volumeCapability: cap() },
      { volumeId, volumeCapability: cap() },
      { volumeId, stagingTargetPath: path },
      stageRequest(volumeId, "relative/path"),
      stageRequest(volumeId, "/"),
      stageRequest(volumeId, `${path}\0x`),
      stageRequest(volumeId, `/${"x".repeat(5000)}`),
      stageRequest(volumeId, path, { volumeCapability: { mount: {} } }),
      stageRequest(volumeId, path, {
        volumeCapability: cap("SINGLE_NODE_WRITER", { mountFlags: ["bind"] }),
      }),
    ])
      await world().fails("INVALID_ARGUMENT", "NodeStageVolume", request);
  });

  it("NodeStageVolume of what is not there is NOT_FOUND", async () => {
    await world().fails(
      "NOT_FOUND",
      "NodeStageVolume",
      stageRequest("fake-vol-id", world().stagingPath()),
    );
  });

  it("NodeStageVolume of a volume that nobody has is FAILED_PRECONDITION", async () => {
    const { volumeId } = await world().create();
    await world().fails(
      "FAILED_PRECONDITION",
      "NodeStageVolume",
      stageRequest(volumeId, world().stagingPath()),
    );
  });

  it("NodeStageVolume of another node's volume is FAILED_PRECONDITION, and names that node", async () => {
    const { volumeId } = await world().create();
    await world().publishTo(volumeId, world().otherNode("elsewhere"));
    const text = await world().fails(
      "FAILED_PRECONDITION",
      "NodeStageVolume",
      stageRequest(volumeId, world().stagingPath()),
    );
    assert.match(text, /elsewhere/);
  });

  it("NodeStageVolume where there is no folder, or a file, is FAILED_PRECONDITION", async () => {
    const volumeId = await ready();
    const gone = join(world().folder, "gone");
    await world().fails("FAILED_PRECONDITION", "NodeStageVolume", stageRequest(volumeId, gone));
    const file = join(world().folder, "file");
    writeFileSync(file, "");
    world().undo(async () => rmSync(file));
    await world().fails("FAILED_PRECONDITION", "NodeStageVolume", stageRequest(volumeId, file));
    const link = join(world().folder, "link");
    symlinkSync("/tmp", link);
    world().undo(async () => rmSync(link));
    await world().fails("FAILED_PRECONDITION", "NodeStageVolume", stageRequest(volumeId, link));
  });

  it("NodeStageVolume where something is in the way is FAILED_PRECONDITION, and it stays", async () => {
    const volumeId = await ready();
    const path = world().stagingPath();
    writeFileSync(join(path, "precious"), "data");
    world().undo(async () => rmSync(join(path, "precious")));
    const text = await world().fails(
      "FAILED_PRECONDITION",
      "NodeStageVolume",
      stageRequest(volumeId, path),
    );
    assert.match(text, /precious/);
    assert.equal(readFileSync(join(path, "precious"), "utf8"), "data");
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: path });
  });

  it("NodeStageVolume where another mount is is FAILED_PRECONDITION, and it stays", async () => {
    const volumeId = await ready();
    const path = world().stagingPath();
    assert.equal(spawnSync("mount", ["-t", "tmpfs", "foreign", path]).status, 0);
    world().undo(async () => spawnSync("umount", [path]));
    assert.match(
      await world().fails("FAILED_PRECONDITION", "NodeStageVolume", stageRequest(volumeId, path)),
      /foreign/,
    );
    assert.ok(
      (await readMountTable()).some((one) => one.mountPoint === path && one.source === "foreign"),
    );
    await world().fails("FAILED_PRECONDITION", "NodeUnstageVolume", {
      volumeId,
      stagingTargetPath: path,
    });
    spawnSync("umount", [path]);
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: path });
  });

  it("NodeStageVolume with options of a file system on a folder is FAILED_PRECONDITION", async (t) => {
    if (world().kind.isBlock) return t.skip("these volumes have file systems");
    const capability = cap("SINGLE_NODE_WRITER", { mountFlags: ["data=journal"] });
    const volumeId = await ready(capability);
    const request = stageRequest(volumeId, world().stagingPath(), { volumeCapability: capability });
    const text = await world().fails("FAILED_PRECONDITION", "NodeStageVolume", request);
    assert.ok(!text.includes("journal"), text);
  });

  it("NodeStageVolume as a device is FAILED_PRECONDITION where volumes are folders", async (t) => {
    if (world().kind.isBlock) return t.skip("these volumes can be devices");
    const volumeId = await ready();
    const request = stageRequest(volumeId, world().stagingPath(), { volumeCapability: blockCap() });
    await world().fails("FAILED_PRECONDITION", "NodeStageVolume", request);
  });

  // ---- staging

  it("NodeStageVolume twice answers the same and mounts once", async () => {
    const { volumeId, staging } = await world().staged();
    await world().call("NodeStageVolume", stageRequest(volumeId, staging));
    assert.deepEqual(await world().mounts(), [staging]);
  });

  it("NodeStageVolume again with another capability is ALREADY_EXISTS", async () => {
    const { volumeId, staging } = await world().staged();
    for (const volumeCapability of [
      cap("SINGLE_NODE_READER_ONLY"),
      cap("SINGLE_NODE_WRITER", { mountFlags: ["noatime"] }),
    ])
      await world().fails(
        "ALREADY_EXISTS",
        "NodeStageVolume",
        stageRequest(volumeId, staging, { volumeCapability }),
      );
  });

  it("NodeStageVolume at a second path is FAILED_PRECONDITION, and names the first", async () => {
    const { volumeId, staging } = await world().staged();
    const text = await world().fails(
      "FAILED_PRECONDITION",
      "NodeStageVolume",
      stageRequest(volumeId, world().stagingPath()),
    );
    assert.ok(text.includes(staging), text);
  });

  it("NodeStageVolume again mounts again what somebody unmounted", async () => {
    const { volumeId, staging } = await world().staged();
    assert.equal(spawnSync("umount", [staging]).status, 0);
    const target = world().targetPath();
    await world().fails(
      "FAILED_PRECONDITION",
      "NodePublishVolume",
      publishRequest({ volumeId, staging }, target),
    );
    await world().call("NodeStageVolume", stageRequest(volumeId, staging));
    assert.deepEqual(await world().mounts(), [staging]);
  });

  it("NodeUnstageVolume of what is not staged, or not there, succeeds", async () => {
    const { volumeId } = await world().create();
    const stagingTargetPath = world().stagingPath();
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath });
    await world().call("NodeUnstageVolume", { volumeId: "fake-vol-id", stagingTargetPath });
    assert.ok(existsSync(stagingTargetPath));
  });

  it("NodeUnstageVolume at another path leaves the volume alone", async () => {
    const { volumeId, staging } = await world().staged();
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: world().stagingPath() });
    assert.deepEqual(await world().mounts(), [staging]);
  });

  it("NodeUnstageVolume without a volume or a path is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "NodeUnstageVolume", { stagingTargetPath: "/x" });
    await world().fails("INVALID_ARGUMENT", "NodeUnstageVolume", { volumeId: "x" });
  });

  it("NodeUnstageVolume while it is published is FAILED_PRECONDITION, and names where", async () => {
    const { volumeId, staging } = await world().staged();
    const target = await world().publish(volumeId, staging);
    const request = { volumeId, stagingTargetPath: staging };
    const text = await world().fails("FAILED_PRECONDITION", "NodeUnstageVolume", request);
    assert.ok(text.includes(target), text);
  });

  it("NodeUnstageVolume leaves the folder, which is the orchestrator's, and takes a vanished one", async () => {
    const { volumeId, staging } = await world().staged();
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
    assert.ok(statSync(staging).isDirectory());
    await world().call("NodeStageVolume", stageRequest(volumeId, staging));
    spawnSync("umount", [staging]);
    rmdirSync(staging);
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
    mkdirSync(staging);
  });

  it("NodeUnstageVolume of a volume that is in use is FAILED_PRECONDITION, and names the process", async () => {
    const { volumeId, staging } = await world().staged();
    const file = join(staging, "open");
    writeFileSync(file, "");
    const { spawn } = await import("node:child_process");
    const holder = spawn("sleep", ["60"], { cwd: staging });
    try {
      const request = { volumeId, stagingTargetPath: staging };
      assert.match(
        await world().fails("FAILED_PRECONDITION", "NodeUnstageVolume", request),
        /sleep \(pid \d+\)/,
      );
    } finally {
      holder.kill("SIGKILL");
      await new Promise((resolve) => holder.once("close", resolve));
    }
    await world().call("NodeStageVolume", stageRequest(volumeId, staging));
  });

  // ---- publishing

  it("NodePublishVolume without a volume, a target or a capability is INVALID_ARGUMENT", async () => {
    const staged = await world().staged();
    const target = world().targetPath();
    const { volumeId, staging } = staged;
    for (const request of [
      {},
      { volumeId },
      { volumeId, targetPath: target },
      publishRequest({ volumeId: "", staging }, target),
      publishRequest(staged, "relative"),
      publishRequest(staged, "/"),
      publishRequest({ volumeId, staging: "relative" }, target),
    ])
      await world().fails("INVALID_ARGUMENT", "NodePublishVolume", request);
  });

  it("NodePublishVolume without a staging path is FAILED_PRECONDITION", async () => {
    const { volumeId } = await world().staged();
    const request = publishRequest({ volumeId, staging: "" }, world().targetPath());
    await world().fails("FAILED_PRECONDITION", "NodePublishVolume", request);
  });

  it("NodePublishVolume of what is not there is NOT_FOUND, of what is not staged FAILED_PRECONDITION", async () => {
    const staging = world().stagingPath();
    const target = world().targetPath();
    await world().fails(
      "NOT_FOUND",
      "NodePublishVolume",
      publishRequest({ volumeId: "fake-vol-id", staging }, target),
    );
    const volumeId = await ready();
    await world().fails(
      "FAILED_PRECONDITION",
      "NodePublishVolume",
      publishRequest({ volumeId, staging }, target),
    );
  });

  it("NodePublishVolume from a path where it is not staged is FAILED_PRECONDITION", async () => {
    const { volumeId } = await world().staged();
    const request = publishRequest(
      { volumeId, staging: world().stagingPath() },
      world().targetPath(),
    );
    await world().fails("FAILED_PRECONDITION", "NodePublishVolume", request);
  });

  it("NodePublishVolume makes the target, and NodeUnpublishVolume removes it", async () => {
    const { volumeId, staging } = await world().staged();
    const target = await world().publish(volumeId, staging);
    writeFileSync(join(target, "file"), "content");
    assert.equal(readFileSync(join(staging, "file"), "utf8"), "content");
    await world().call("NodeUnpublishVolume", { volumeId, targetPath: target });
    assert.ok(!existsSync(target));
    assert.equal(readFileSync(join(staging, "file"), "utf8"), "content");
  });

  it("NodePublishVolume takes an empty folder that is there", async () => {
    const { volumeId, staging } = await world().staged();
    const target = world().targetPath();
    mkdirSync(target);
    await world().call("NodePublishVolume", publishRequest({ volumeId, staging }, target));
    await world().call("NodeUnpublishVolume", { volumeId, targetPath: target });
    assert.ok(!existsSync(target));
  });

  it("NodePublishVolume twice answers the same and mounts once", async () => {
    const { volumeId, staging } = await world().staged();
    const target = await world().publish(volumeId, staging);
    await world().call("NodePublishVolume", publishRequest({ volumeId, staging }, target));
    assert.deepEqual((await world().mounts()).toSorted(), [staging, target].toSorted());
  });

  it("NodePublishVolume at the same target otherwise is ALREADY_EXISTS", async () => {
    const staged = await world().staged();
    const target = await world().publish(staged.volumeId, staged.staging);
    await world().fails(
      "ALREADY_EXISTS",
      "NodePublishVolume",
      publishRequest(staged, target, { readonly: true }),
    );
    const volumeCapability = cap("SINGLE_NODE_READER_ONLY");
    await world().fails(
      "ALREADY_EXISTS",
      "NodePublishVolume",
      publishRequest(staged, target, { volumeCapability }),
    );
  });

  it("NodePublishVolume read-only cannot be written, and the staged volume can", async () => {
    const staged = await world().staged();
    const target = await world().publish(staged.volumeId, staged.staging, { readonly: true });
    assert.throws(() => writeFileSync(join(target, "file"), ""), { code: "EROFS" });
    writeFileSync(join(staged.staging, "file"), "");
  });

  it("a volume that the controller published read-only cannot be written on the node", async () => {
    const { volumeId } = await world().create();
    await world().format(volumeId);
    await world().publishTo(volumeId, await world().nodeID(), { readonly: true });
    const staging = await world().stage(volumeId);
    assert.throws(() => writeFileSync(join(staging, "file"), ""), { code: "EROFS" });
    const target = await world().publish(volumeId, staging);
    assert.throws(() => writeFileSync(join(target, "file"), ""), { code: "EROFS" });
  });

  it("a volume in a mode for readers cannot be written", async () => {
    for (const mode of ["SINGLE_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY"]) {
      const capability = cap(mode);
      const { volumeId, staging } = await world().staged(capability);
      const target = await world().publish(volumeId, staging, { volumeCapability: capability });
      assert.throws(() => writeFileSync(join(target, "file"), ""), { code: "EROFS" });
    }
  });

  it("NodePublishVolume at a second target, mode by mode, as the specification's table", async () => {
    for (const [mode, isAllowed] of [
      ["SINGLE_NODE_WRITER", false],
      ["SINGLE_NODE_SINGLE_WRITER", false],
      ["SINGLE_NODE_READER_ONLY", false],
      ["SINGLE_NODE_MULTI_WRITER", true],
      ["MULTI_NODE_READER_ONLY", true],
    ] as const) {
      const volumeCapability = cap(mode);
      const staged = await world().staged(volumeCapability);
      const first = await world().publish(staged.volumeId, staged.staging, { volumeCapability });
      const second = world().targetPath();
      const request = publishRequest(staged, second, { volumeCapability });
      if (isAllowed) {
        await world().call("NodePublishVolume", request);
        await world().call("NodeUnpublishVolume", {
          volumeId: staged.volumeId,
          targetPath: second,
        });
      } else {
        const text = await world().fails("FAILED_PRECONDITION", "NodePublishVolume", request);
        assert.ok(text.includes(first), `${mode}: ${text}`);
        assert.ok(!existsSync(second), "a refused call leaves nothing");
      }
    }
  });

  it("NodePublishVolume where something is in the way is FAILED_PRECONDITION, and it stays", async () => {
    const staged = await world().staged();
    const file = world().targetPath();
    writeFileSync(file, "mine");
    world().undo(async () => rmSync(file));
    await world().fails("FAILED_PRECONDITION", "NodePublishVolume", publishRequest(staged, file));
    assert.equal(readFileSync(file, "utf8"), "mine");
    const link = world().targetPath();
    symlinkSync("/tmp", link);
    world().undo(async () => rmSync(link));
    await world().fails("FAILED_PRECONDITION", "NodePublishVolume", publishRequest(staged, link));
    const folder = world().targetPath();
    mkdirSync(folder);
    writeFileSync(join(folder, "precious"), "");
    world().undo(async () => rmSync(folder, { recursive: true }));
    const text = await world().fails(
      "FAILED_PRECONDITION",
      "NodePublishVolume",
      publishRequest(staged, folder),
    );
    assert.match(text, /precious/);
  });

  it("NodeUnpublishVolume without a volume or a target is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "NodeUnpublishVolume", {});
    await world().fails("INVALID_ARGUMENT", "NodeUnpublishVolume", { volumeId: "x" });
    await world().fails("INVALID_ARGUMENT", "NodeUnpublishVolume", { targetPath: "/x" });
  });

  it("NodeUnpublishVolume of what is not published, or not there, succeeds", async () => {
    const { volumeId } = await world().staged();
    const targetPath = world().targetPath();
    await world().call("NodeUnpublishVolume", { volumeId, targetPath });
    await world().call("NodeUnpublishVolume", { volumeId: "fake-vol-id", targetPath });
  });

  it("NodeUnpublishVolume where somebody else's mount is is FAILED_PRECONDITION, and it stays", async () => {
    const { volumeId } = await world().staged();
    const target = world().targetPath();
    mkdirSync(target);
    spawnSync("mount", ["-t", "tmpfs", "foreign", target]);
    world().undo(async () => {
      spawnSync("umount", [target]);
      rmdirSync(target);
    });
    await world().fails("FAILED_PRECONDITION", "NodeUnpublishVolume", {
      volumeId,
      targetPath: target,
    });
    assert.ok((await world().mounts()).includes(target));
  });

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
