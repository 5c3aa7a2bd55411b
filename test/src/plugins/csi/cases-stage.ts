/** NodeStageVolume and NodeUnstageVolume, and what stands in the way. */
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
import { blockCap, cap } from "./world.js";
import { nodeRequests } from "./node-requests.js";

export function stageCases(world: () => World): void {
  const { stageRequest, publishRequest, ready } = nodeRequests(world);

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

  it("NodeStageVolume of another node's volume is FAILED_PRECONDITION, and names that node", async (t) => {
    if (world().skipsFarNodes(t)) return;
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
}
