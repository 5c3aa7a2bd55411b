/** NodePublishVolume and NodeUnpublishVolume, mode by mode. */
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
import { cap } from "./world.js";
import { nodeRequests } from "./node-requests.js";

export function nodePublishCases(world: () => World): void {
  const { publishRequest, ready } = nodeRequests(world);

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

  it("NodePublishVolume in a mode for readers cannot be written, however it is staged", async () => {
    const staged = await world().staged();
    const volumeCapability = cap("SINGLE_NODE_READER_ONLY");
    const target = await world().publish(staged.volumeId, staged.staging, { volumeCapability });
    assert.throws(() => writeFileSync(join(target, "file"), ""), { code: "EROFS" });
    await world().call("NodePublishVolume", publishRequest(staged, target, { volumeCapability }));
    writeFileSync(join(staged.staging, "file"), "");
  });

  it("NodePublishVolume gives the options to a mount that a kill has left without them", async () => {
    const staged = await world().staged();
    const target = await world().publish(staged.volumeId, staged.staging, { readonly: true });
    const options = ["-o", "remount,bind,rw", target];
    assert.equal(spawnSync("mount", options).status, 0);
    writeFileSync(join(target, "file"), "");
    const request = publishRequest(staged, target, { readonly: true });
    await world().call("NodePublishVolume", request);
    assert.throws(() => writeFileSync(join(target, "file"), ""), { code: "EROFS" });
    assert.equal((await world().mounts()).filter((at) => at === target).length, 1);
  });

  it("NodePublishVolume gives its mount flags to the target, beside those of the stage", async () => {
    const staged = await world().staged(cap("SINGLE_NODE_WRITER", { mountFlags: ["nosuid"] }));
    const volumeCapability = cap("SINGLE_NODE_WRITER", { mountFlags: ["noexec,nodev", "ro"] });
    const target = await world().publish(staged.volumeId, staged.staging, { volumeCapability });
    const optionsAt = async (path: string): Promise<readonly string[]> => {
      const table = await readMountTable();
      return table.find(({ mountPoint }) => mountPoint === path)?.opts.split(",") ?? [];
    };
    for (const flag of ["nosuid", "noexec", "nodev", "ro"])
      assert.ok((await optionsAt(target)).includes(flag), flag);
    for (const flag of ["noexec", "nodev", "ro"])
      assert.ok(!(await optionsAt(staged.staging)).includes(flag), flag);
    const wrong = cap("SINGLE_NODE_WRITER", { mountFlags: ["remount"] });
    const request = publishRequest(staged, world().targetPath(), { volumeCapability: wrong });
    await world().fails("INVALID_ARGUMENT", "NodePublishVolume", request);
  });

  it("NodePublishVolume gives the files to its group, unless they are published to another", async () => {
    const grouped = (volumeMountGroup: string): object =>
      cap("SINGLE_NODE_MULTI_WRITER", { volumeMountGroup });
    const staged = await world().staged(cap("SINGLE_NODE_MULTI_WRITER"));
    writeFileSync(join(staged.staging, "file"), "");
    const volumeCapability = grouped("1234");
    const target = await world().publish(staged.volumeId, staged.staging, { volumeCapability });
    assert.equal(statSync(join(target, "file")).gid, 1234);
    await world().publish(staged.volumeId, staged.staging, { volumeCapability });
    const other = world().targetPath();
    const request = publishRequest(staged, other, { volumeCapability: grouped("4321") });
    const text = await world().fails("FAILED_PRECONDITION", "NodePublishVolume", request);
    assert.ok(text.includes(target), text);
    assert.ok(!existsSync(other), "a refused call leaves nothing");
    assert.equal(statSync(join(target, "file")).gid, 1234);
  });

  it("NodePublishVolume at a path that cannot be is told with its path", async () => {
    const staged = await world().staged();
    const missing = world().targetPath();
    const file = world().targetPath();
    writeFileSync(file, "");
    world().undo(async () => rmSync(file));
    for (const [parent, status] of [
      [missing, "FAILED_PRECONDITION"],
      [join(missing, "deeper"), "FAILED_PRECONDITION"],
      [file, "FAILED_PRECONDITION"],
      [join(file, "deeper"), "FAILED_PRECONDITION"],
      [join(world().folder, "y".repeat(300)), "INVALID_ARGUMENT"],
    ] as const) {
      const target = join(parent, "target");
      const text = await world().fails(status, "NodePublishVolume", publishRequest(staged, target));
      assert.ok(text.includes(status === "INVALID_ARGUMENT" ? world().folder : parent), text);
      assert.ok(!existsSync(missing), "a refused call leaves nothing");
    }
    const name = join(world().folder, "y".repeat(300));
    await world().fails("INVALID_ARGUMENT", "NodePublishVolume", publishRequest(staged, name));
    const { volumeId } = staged;
    await world().call("NodeUnpublishVolume", { volumeId, targetPath: join(file, "x") });
  });

  it("the folder of a volume that was published before the host started again goes", async () => {
    const { volumeId, staging } = await world().staged();
    const target = await world().publish(volumeId, staging);
    world().restartHost(volumeId, [target, staging]);
    assert.ok(existsSync(target));
    await world().call("NodeUnpublishVolume", { volumeId, targetPath: target });
    assert.ok(!existsSync(target));
    const precious = world().targetPath();
    mkdirSync(precious);
    writeFileSync(join(precious, "file"), "");
    world().undo(async () => rmSync(precious, { recursive: true }));
    await world().call("NodeUnpublishVolume", { volumeId, targetPath: precious });
    assert.ok(existsSync(join(precious, "file")), "what has content stays");
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
}
