/** NodePublishVolume of volumes that are devices: what differs from the stage, and what is in the way. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename } from "node:path";
import { it } from "node:test";
import type { Devices } from "./cases-device.js";
import type { Message } from "./csi-client.js";
import { nodeRequests } from "./node-requests.js";
import type { World } from "./world.js";
import { blockCap, cap } from "./world.js";

export function devicePublishCases(world: () => World, devices: () => Devices): void {
  const { publishRequest } = nodeRequests(world);

  for (const [staged, asked] of [
    [cap(), blockCap()],
    [blockCap(), cap()],
  ])
    it(`staged as ${Object.keys(staged)[0]}, it is not published as ${Object.keys(asked)[0]}`, async () => {
      const stage = await world().staged(staged);
      const target = world().targetPath();
      const request = publishRequest(stage, target, { volumeCapability: asked });
      const text = await world().fails("FAILED_PRECONDITION", "NodePublishVolume", request);
      assert.match(text, /access type (?:block|mount)/);
      assert.ok(!existsSync(target), "a refused call leaves nothing");
    });

  it("mount flags that its file system was not staged with are FAILED_PRECONDITION", async () => {
    const staged = await world().staged(cap("SINGLE_NODE_WRITER", { mountFlags: ["commit=30"] }));
    const other = cap("SINGLE_NODE_WRITER", { mountFlags: ["commit=31", "nodev"] });
    const request = publishRequest(staged, world().targetPath(), { volumeCapability: other });
    const text = await world().fails("FAILED_PRECONDITION", "NodePublishVolume", request);
    assert.ok(!/commit|31/.test(text), text);
    const same = cap("SINGLE_NODE_WRITER", { mountFlags: ["nodev", "commit=30"] });
    await world().publish(staged.volumeId, staged.staging, { volumeCapability: same });
  });

  it("NodeGetVolumeStats says of a device that has vanished that it has, and of which", async () => {
    const { volumeId, staging } = await world().staged(blockCap());
    const target = await world().publish(volumeId, staging, { volumeCapability: blockCap() });
    const told = async (volumePath: string): Promise<Message> =>
      world().call("NodeGetVolumeStats", { volumeId, volumePath });
    const link = devices().link(volumeId);
    const device = devices().device(volumeId);
    rmSync(link);
    for (const path of [staging, target]) {
      const { usage, volumeCondition } = await told(path);
      assert.deepEqual(usage, []);
      assert.equal(volumeCondition.abnormal, true);
      assert.ok(volumeCondition.message.includes(basename(link)), volumeCondition.message);
    }
    symlinkSync(device, link);
    for (const path of [staging, target])
      assert.equal((await told(path)).volumeCondition.abnormal, false);
  });

  it("a device in a mode for readers cannot be written", async () => {
    const { volumeId, staging } = await world().staged(blockCap());
    const volumeCapability = blockCap("SINGLE_NODE_READER_ONLY");
    const target = await world().publish(volumeId, staging, { volumeCapability });
    const { status } = spawnSync("dd", ["if=/dev/zero", `of=${target}`, "bs=4096", "count=1"]);
    assert.notEqual(status, 0);
  });

  it("what somebody else has mounted at the target of a device is named, and stays", async () => {
    const staged = await world().staged(blockCap());
    const bound = (what: string): string => {
      const target = world().targetPath();
      writeFileSync(target, "");
      assert.equal(spawnSync("mount", ["--bind", what, target]).status, 0);
      world().undo(async () => {
        spawnSync("umount", [target]);
        rmSync(target);
      });
      return target;
    };
    const empty = world().targetPath();
    writeFileSync(empty, "");
    world().undo(async () => rmSync(empty));
    const folder = world().targetPath();
    mkdirSync(folder);
    assert.equal(spawnSync("mount", ["-t", "tmpfs", "foreign", folder]).status, 0);
    world().undo(async () => {
      spawnSync("umount", [folder]);
      rmdirSync(folder);
    });
    for (const [target, name] of [
      [bound(empty), empty.split("/").at(-1)],
      [bound("/dev/null"), "/null"],
      [folder, "foreign"],
    ] as const) {
      const request = publishRequest(staged, target, { volumeCapability: blockCap() });
      const text = await world().fails("FAILED_PRECONDITION", "NodePublishVolume", request);
      assert.ok(text.includes(`${name} (`), text);
      const there = (await world().mounts()).filter((at) => at === target);
      assert.equal(there.length, 1, "as it was");
    }
  });

  it("NodeUnpublishVolume leaves what somebody has mounted over a device", async () => {
    const { volumeId, staging } = await world().staged(blockCap());
    const target = await world().publish(volumeId, staging, { volumeCapability: blockCap() });
    spawnSync("umount", [target]);
    rmSync(target);
    mkdirSync(target);
    spawnSync("mount", ["-t", "tmpfs", "foreign", target]);
    const request = { volumeId, targetPath: target };
    const text = await world().fails("FAILED_PRECONDITION", "NodeUnpublishVolume", request);
    assert.match(text, /foreign/);
    assert.ok((await world().mounts()).includes(target));
    spawnSync("umount", [target]);
  });

  it("the file of a device that was published before the host started again goes", async () => {
    const { volumeId, staging } = await world().staged(blockCap());
    const target = await world().publish(volumeId, staging, { volumeCapability: blockCap() });
    world().restartHost(volumeId, [target]);
    assert.ok(statSync(target).isFile());
    await world().call("NodeUnpublishVolume", { volumeId, targetPath: target });
    assert.ok(!existsSync(target));
  });
}
