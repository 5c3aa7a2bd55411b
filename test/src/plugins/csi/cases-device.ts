/** Volumes that are devices: file systems on them, and they themselves. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { basename, join } from "node:path";
import { it } from "node:test";
import { readMountTable } from "@libstorage/client/host";
import { cannotGrow } from "../../client/host-fixture.js";
import { devicePublishCases } from "./cases-device-publish.js";
import type { World } from "./world.js";
import { blockCap, cap, GIB, unique } from "./world.js";

function run(tool: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(tool, args, { encoding: "utf8" });
  assert.equal(status, 0, `${tool} ${args.join(" ")}: ${error?.message ?? stderr}`);
  return stdout;
}

function typeOn(device: string): string {
  return spawnSync("blkid", ["--probe", "--output", "value", "--match-tag", "TYPE", device], {
    encoding: "utf8",
  }).stdout.trim();
}

/** Where the devices of volumes that are attached to this host are. */
export interface Devices {
  device(id: string): string;
  /** The link that names it for good. */
  link(id: string): string;
}

export function deviceCases(world: () => World, devices: () => Devices): void {
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
  const ready = async (capability = world().cap()): Promise<string> => {
    const { volumeId } = await world().create({ volumeCapabilities: [capability] });
    await world().publishTo(volumeId, await world().nodeID(), { volumeCapability: capability });
    return volumeId;
  };

  for (const [fsType, sizeGiB] of [
    ["ext4", 1],
    ["xfs", 1],
    ["btrfs", 1],
  ] as const)
    it(`a blank device gets ${fsType} once, and keeps it`, async (t) => {
      const lacking = cannotMake(fsType);
      if (lacking !== false) return t.skip(lacking);
      const capability = cap("SINGLE_NODE_WRITER", { fsType });
      const capacityRange = { requiredBytes: sizeGiB * GIB };
      const { volumeId, staging } = await world().staged(capability, { capacityRange });
      assert.equal(typeOn(devices().device(volumeId)), fsType);
      writeFileSync(join(staging, "kept"), "yes");
      await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
      await world().call(
        "NodeStageVolume",
        stageRequest(volumeId, staging, { volumeCapability: capability }),
      );
      assert.ok(existsSync(join(staging, "kept")));
    });

  it("a blank device gets ext4 when nobody asks", async () => {
    const { volumeId } = await world().staged();
    assert.equal(typeOn(devices().device(volumeId)), "ext4");
  });

  it("a file system that this client does not make is INVALID_ARGUMENT", async () => {
    const volumeCapabilities = [cap("SINGLE_NODE_WRITER", { fsType: "reiserfs" })];
    await world().fails("INVALID_ARGUMENT", "CreateVolume", {
      name: unique("pvc"),
      volumeCapabilities,
    });
  });

  it("a device with another file system is FAILED_PRECONDITION and not formatted", async () => {
    const volumeId = await ready();
    const device = devices().device(volumeId);
    run("mkfs.ext4", "-q", device);
    const volumeCapability = cap("SINGLE_NODE_WRITER", { fsType: "xfs" });
    const request = stageRequest(volumeId, world().stagingPath(), { volumeCapability });
    assert.match(await world().fails("FAILED_PRECONDITION", "NodeStageVolume", request), /ext4/);
    assert.equal(typeOn(device), "ext4");
    await world().call("NodeUnstageVolume", request);
  });

  it("a device with a partition table is FAILED_PRECONDITION and not touched", async (t) => {
    if (spawnSync("sfdisk", ["--version"]).error !== undefined)
      return t.skip("sfdisk is not installed");
    const volumeId = await ready();
    const device = devices().device(volumeId);
    const made = spawnSync("sfdisk", ["--quiet", device], { input: "label: gpt\n,100M\n" });
    assert.equal(made.status, 0);
    const before = startOf(device);
    const request = stageRequest(volumeId, world().stagingPath());
    assert.match(
      await world().fails("FAILED_PRECONDITION", "NodeStageVolume", request),
      /partition table/,
    );
    assert.deepEqual(startOf(device), before);
    await world().call("NodeUnstageVolume", request);
  });

  it("a device with data that no tool knows is FAILED_PRECONDITION and not touched", async () => {
    const volumeId = await ready();
    const device = devices().device(volumeId);
    const handle = openSync(device, "r+");
    writeSync(handle, Buffer.alloc(4096, 7), 0, 4096, 65536);
    closeSync(handle);
    const before = startOf(device);
    const request = stageRequest(volumeId, world().stagingPath());
    assert.match(
      await world().fails("FAILED_PRECONDITION", "NodeStageVolume", request),
      /no tool recognises/,
    );
    assert.deepEqual(startOf(device), before);
    await world().call("NodeUnstageVolume", request);
  });

  it("a device that is gone is an error that names it, and nothing is mounted", async () => {
    const volumeId = await ready();
    const link = devices().link(volumeId);
    const device = devices().device(volumeId);
    rmSync(link);
    const request = stageRequest(volumeId, world().stagingPath());
    const text = await world().fails("FAILED_PRECONDITION", "NodeStageVolume", request);
    assert.ok(text.includes(basename(link)), text);
    assert.deepEqual(await world().mounts(), []);
    run("ln", "-s", device, link);
    await world().call("NodeUnstageVolume", request);
  });

  it("a file system with errors that fsck corrects is mounted", async () => {
    const { volumeId, staging } = await world().staged();
    await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
    // A journal that was not closed: an unclean end.
    run("debugfs", "-w", "-R", "feature needs_recovery", devices().device(volumeId));
    await world().call("NodeStageVolume", stageRequest(volumeId, staging));
  });

  for (const fsType of ["ext4", "xfs", "btrfs"]) {
    const capability = cap("SINGLE_NODE_WRITER", { fsType });

    it(`${fsType} grows with its volume, while it is published`, async (t) => {
      const lacking = cannotMake(fsType) || cannotGrow(fsType);
      if (lacking !== false) return t.skip(lacking);
      const { volumeId, staging } = await world().staged(capability);
      const target = await world().publish(volumeId, staging, { volumeCapability: capability });
      const before = statfsSync(target).blocks;
      const capacityRange = { requiredBytes: 2 * GIB };
      const reply = await world().call("ControllerExpandVolume", { volumeId, capacityRange });
      assert.equal(reply.nodeExpansionRequired, true);
      assert.equal(statfsSync(target).blocks, before);
      const request = { volumeId, volumePath: target, stagingTargetPath: staging, capacityRange };
      for (let time = 0; time < 2; time += 1) await world().call("NodeExpandVolume", request);
      assert.ok(statfsSync(target).blocks > before * 1.8);
    });

    it(`a clone that is larger than its source has ${fsType} of that size`, async (t) => {
      if (fsType === "btrfs") return t.skip("two btrfs of one id are one to the kernel");
      const lacking = cannotMake(fsType) || cannotGrow(fsType);
      if (lacking !== false) return t.skip(lacking);
      const { volumeId, staging } = await world().staged(capability);
      const small = statfsSync(staging).blocks;
      await world().call("NodeUnstageVolume", { volumeId, stagingTargetPath: staging });
      const capacityRange = { requiredBytes: 3 * GIB };
      const volumeContentSource = { volume: { volumeId } };
      const clone = await world().staged(capability, { volumeContentSource, capacityRange });
      assert.ok(statfsSync(clone.staging).blocks > small * 2.7);
    });
  }

  // ---- devices themselves

  it("a volume published as a device is one, and can be written", async () => {
    const { volumeId, staging } = await world().staged(blockCap());
    assert.deepEqual(await world().mounts(), []);
    const target = await world().publish(volumeId, staging, { volumeCapability: blockCap() });
    assert.ok(statSync(target).isBlockDevice());
    const handle = openSync(target, "r+");
    writeSync(handle, Buffer.alloc(4096, 1));
    closeSync(handle);
    assert.equal(startOf(devices().device(volumeId))[0], 1);
    const { usage, volumeCondition } = await world().call("NodeGetVolumeStats", {
      volumeId,
      volumePath: target,
    });
    assert.equal(usage[0].total, GIB);
    assert.equal(volumeCondition.abnormal, false);
    await world().call("NodePublishVolume", {
      ...stageRequest(volumeId, staging),
      targetPath: target,
      volumeCapability: blockCap(),
    });
    await world().call("NodeUnpublishVolume", { volumeId, targetPath: target });
    assert.ok(!existsSync(target));
  });

  it("a device is not formatted when it is used as one", async () => {
    const { volumeId } = await world().staged(blockCap());
    assert.equal(typeOn(devices().device(volumeId)), "");
  });

  it("a device published read-only cannot be written, and after that it can", async () => {
    const capability = blockCap();
    const { volumeId, staging } = await world().staged(capability);
    const target = await world().publish(volumeId, staging, {
      volumeCapability: capability,
      readonly: true,
    });
    assert.throws(() => {
      const handle = openSync(target, "r+");
      try {
        writeSync(handle, Buffer.alloc(4096, 1));
      } finally {
        closeSync(handle);
      }
    });
    await world().call("NodeUnpublishVolume", { volumeId, targetPath: target });
    const writable = await world().publish(volumeId, staging, { volumeCapability: capability });
    const handle = openSync(writable, "r+");
    writeSync(handle, Buffer.alloc(4096, 1));
    closeSync(handle);
  });

  it("a device is either read-only or not, for all its places", async () => {
    const capability = blockCap("SINGLE_NODE_MULTI_WRITER");
    const { volumeId, staging } = await world().staged(capability);
    await world().publish(volumeId, staging, { volumeCapability: capability });
    await world().publish(volumeId, staging, { volumeCapability: capability });
    await world().fails("FAILED_PRECONDITION", "NodePublishVolume", {
      ...stageRequest(volumeId, staging, { volumeCapability: capability }),
      targetPath: world().targetPath(),
      readonly: true,
    });
  });

  it("a target of a device that is a folder or has content is FAILED_PRECONDITION", async () => {
    const { volumeId, staging } = await world().staged(blockCap());
    const target = world().targetPath();
    writeFileSync(target, "mine");
    world().undo(async () => rmSync(target));
    const request = {
      ...stageRequest(volumeId, staging, { volumeCapability: blockCap() }),
      targetPath: target,
    };
    await world().fails("FAILED_PRECONDITION", "NodePublishVolume", request);
    assert.equal(statSync(target).size, 4);
  });

  it("a device grows", async () => {
    const { volumeId, staging } = await world().staged(blockCap());
    const target = await world().publish(volumeId, staging, { volumeCapability: blockCap() });
    const capacityRange = { requiredBytes: 2 * GIB };
    const reply = await world().call("ControllerExpandVolume", {
      volumeId,
      capacityRange,
      volumeCapability: blockCap(),
    });
    assert.equal(reply.nodeExpansionRequired, false);
    await world().call("NodeExpandVolume", { volumeId, volumePath: target, capacityRange });
    const { usage } = await world().call("NodeGetVolumeStats", { volumeId, volumePath: target });
    assert.equal(usage[0].total, 2 * GIB);
  });

  devicePublishCases(world, devices);

  // ---- groups in use

  it("a group of volumes in use is of one moment: their file systems stand still meanwhile", async () => {
    const one = await world().staged();
    const two = await world().staged();
    const counts = [one, two].map(({ staging }) => join(staging, "count"));
    let isOver = false;
    let last = 0;
    const count = async () => {
      last += 1;
      // The second never knows of a number that the first does not.
      for (const file of counts) await writeSynced(file, String(last).padStart(8, "0"));
    };
    await count();
    const writing = (async () => {
      while (!isOver) await count();
    })();
    const request = {
      name: unique("group"),
      sourceVolumeIds: [one.volumeId, two.volumeId],
      parameters: { freeze: "true" },
    };
    if (world().kind.freezesItself === true) {
      const text = await world().fails("FAILED_PRECONDITION", "CreateVolumeGroupSnapshot", request);
      assert.match(text, /LVM freezes/);
      isOver = true;
      return writing;
    }
    const { groupSnapshot } = await world().call("CreateVolumeGroupSnapshot", request);
    const { groupSnapshotId, snapshots } = groupSnapshot;
    world().undo(() => world().call("DeleteVolumeGroupSnapshot", { groupSnapshotId }));
    const then = last;
    await new Promise((resolve) => setTimeout(resolve, 50));
    isOver = true;
    await writing;
    assert.ok(last > then, "the file systems were thawed");
    const values: number[] = [];
    for (const { volumeId } of [one, two]) {
      const snapshot = snapshots.find(
        (each: { sourceVolumeId: string }) => each.sourceVolumeId === volumeId,
      );
      const copy = await world().staged(world().cap(), {
        volumeContentSource: { snapshot: { snapshotId: snapshot.snapshotId } },
      });
      values.push(
        Number(spawnSync("cat", [join(copy.staging, "count")], { encoding: "utf8" }).stdout),
      );
    }
    const [first = 0, second = 0] = values;
    assert.ok(
      second > 0 && (first === second || first === second + 1),
      `${first} and ${second} are not of one moment`,
    );
  });

  it("every file system is thawed when a snapshot fails", async () => {
    const one = await world().staged();
    await world().fails("NOT_FOUND", "CreateVolumeGroupSnapshot", {
      name: unique("group"),
      sourceVolumeIds: [one.volumeId, "fake-vol-id"],
      parameters: { freeze: "true" },
    });
    writeFileSync(join(one.staging, "file"), "written");
    assert.ok((await readMountTable()).some(({ mountPoint }) => mountPoint === one.staging));
  });
}

/** Writes over what the file holds: one emptied first could be seen empty by a freeze in between. */
async function writeSynced(file: string, text: string): Promise<void> {
  const handle = await open(file, constants.O_WRONLY | constants.O_CREAT);
  try {
    await handle.write(text, 0);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Why there is no such file system here, or false. */
function cannotMake(fsType: string): string | false {
  const { error } = spawnSync(`mkfs.${fsType}`, ["--help"]);
  return error !== undefined && `mkfs.${fsType} is not installed`;
}

function startOf(device: string): Buffer {
  const buffer = Buffer.alloc(1024 ** 2);
  const handle = openSync(device, "r");
  readSync(handle, buffer, 0, buffer.length, 0);
  closeSync(handle);
  return buffer;
}
