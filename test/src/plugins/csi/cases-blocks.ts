/** The SnapshotMetadata service over drivers that know the blocks of their snapshots. */
import assert from "node:assert/strict";
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { it } from "node:test";
import type { Message } from "./csi-client.js";
import type { World } from "./world.js";
import { blockCap, GIB } from "./world.js";

const MIB = 1024 ** 2;
const WRITTEN = 64 * 1024;

export function blockCases(world: () => World): void {
  const fails = (name: string, request: object, code: string): Promise<void> =>
    assert.rejects(world().plugin.stream(name, request), { code });

  it("tells of two equal snapshots that nothing differs", async () => {
    const { volumeId } = await world().create();
    const one = await world().snapshot(volumeId);
    const two = await world().snapshot(volumeId);
    const ids = { baseSnapshotId: one.snapshotId, targetSnapshotId: two.snapshotId };
    const pages = await world().plugin.stream("GetMetadataDelta", ids);
    assert.equal(pages.length, 1);
    assert.equal(pages[0]?.volumeCapacityBytes, one.sizeBytes);
    assert.deepEqual(pages[0]?.blockMetadata, []);
  });

  it("a snapshot that is not there is NOT_FOUND, its id in other letters too", async () => {
    const { snapshotId } = await world().snapshot((await world().create()).volumeId);
    const other = snapshotId.toUpperCase();
    assert.notEqual(other, snapshotId);
    for (const wrong of ["fake-snapshot-id", "..", other]) {
      await fails("GetMetadataAllocated", { snapshotId: wrong }, "NOT_FOUND");
      const pairs = [
        { baseSnapshotId: wrong, targetSnapshotId: snapshotId },
        { baseSnapshotId: snapshotId, targetSnapshotId: wrong },
      ];
      for (const pair of pairs) await fails("GetMetadataDelta", pair, "NOT_FOUND");
    }
  });

  it("snapshots of two volumes are INVALID_ARGUMENT, with their names", async () => {
    const one = await world().snapshot((await world().create()).volumeId);
    const two = await world().snapshot((await world().create()).volumeId);
    const ids = { baseSnapshotId: one.snapshotId, targetSnapshotId: two.snapshotId };
    await assert.rejects(world().plugin.stream("GetMetadataDelta", ids), (error: Message) => {
      assert.equal(error.code, "INVALID_ARGUMENT");
      for (const id of [one.sourceVolumeId, two.sourceVolumeId])
        assert.ok(error.message.includes(id));
      return true;
    });
  });

  it("a wrong starting_offset is OUT_OF_RANGE, a wrong max_results INVALID_ARGUMENT", async () => {
    const { snapshotId } = await world().snapshot((await world().create()).volumeId);
    const ids = { baseSnapshotId: snapshotId, targetSnapshotId: snapshotId };
    for (const [more, code] of [
      [{ startingOffset: GIB + 1 }, "OUT_OF_RANGE"],
      [{ startingOffset: -1 }, "OUT_OF_RANGE"],
      [{ maxResults: -1 }, "INVALID_ARGUMENT"],
    ] as const) {
      await fails("GetMetadataAllocated", { snapshotId, ...more }, code);
      await fails("GetMetadataDelta", { ...ids, ...more }, code);
    }
  });

  it("tells the blocks that were written, and those alone", async (t) => {
    const { noMounts } = world().kind;
    if (noMounts !== false) return t.skip(noMounts);
    const capability = blockCap();
    const { volumeId } = await world().create({ volumeCapabilities: [capability] });
    await written(world(), volumeId, [8 * MIB]);
    const one = await world().snapshot(volumeId);
    await written(world(), volumeId, [128 * MIB, 512 * MIB]);
    const two = await world().snapshot(volumeId);

    const told = async (name: string, request: object): Promise<Message[][]> =>
      (await world().plugin.stream(name, request)).map(({ blockMetadata }) => blockMetadata);
    const snapshotId = two.snapshotId;
    const all = (await told("GetMetadataAllocated", { snapshotId })).flat();
    assertNear(all, [8 * MIB, 128 * MIB, 512 * MIB]);
    const old = await told("GetMetadataAllocated", { snapshotId: one.snapshotId });
    assertNear(old.flat(), [8 * MIB]);

    const ids = { baseSnapshotId: one.snapshotId, targetSnapshotId: snapshotId };
    assertNear((await told("GetMetadataDelta", ids)).flat(), [128 * MIB, 512 * MIB]);
    const single = await told("GetMetadataDelta", { ...ids, maxResults: 1 });
    assert.ok(single.length >= 2);
    for (const page of single) assert.equal(page.length, 1);
    assertNear(single.flat(), [128 * MIB, 512 * MIB]);
    const startingOffset = 256 * MIB;
    assertNear((await told("GetMetadataDelta", { ...ids, startingOffset })).flat(), [512 * MIB]);
    const inside = 512 * MIB + WRITTEN / 2;
    const [rest] = (await told("GetMetadataDelta", { ...ids, startingOffset: inside })).flat();
    assert.ok(rest !== undefined && rest.byteOffset + rest.sizeBytes > inside);
  });
}

/** Writes some bytes at each of the offsets of the volume, through its device, and gives it back. */
async function written(world: World, volumeId: string, offsets: readonly number[]): Promise<void> {
  const volumeCapability = blockCap();
  const nodeId = await world.nodeID();
  await world.publishTo(volumeId, nodeId, { volumeCapability });
  const stagingTargetPath = await world.stage(volumeId, { volumeCapability });
  const targetPath = await world.publish(volumeId, stagingTargetPath, { volumeCapability });
  const handle = openSync(targetPath, "r+");
  for (const at of offsets) writeSync(handle, Buffer.alloc(WRITTEN, 7), 0, WRITTEN, at);
  fsyncSync(handle);
  closeSync(handle);
  await world.call("NodeUnpublishVolume", { volumeId, targetPath });
  await world.call("NodeUnstageVolume", { volumeId, stagingTargetPath });
  await world.call("ControllerUnpublishVolume", { volumeId, nodeId });
}

/** Whether what is told covers what was written, and nothing that is not near it. */
function assertNear(extents: readonly Message[], offsets: readonly number[]): void {
  const text = JSON.stringify(extents);
  for (const at of offsets) {
    const covered = extents
      .filter(({ byteOffset }) => byteOffset >= at - MIB && byteOffset < at + WRITTEN)
      .reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    assert.ok(covered >= WRITTEN, `${text} does not tell of ${at}`);
  }
  for (const { byteOffset, sizeBytes } of extents) {
    const near = (at: number): boolean =>
      byteOffset >= at - MIB && byteOffset + sizeBytes <= at + WRITTEN + MIB;
    assert.ok(offsets.some(near), `${text} tells of what nobody has written`);
  }
}
