/** Snapshots, single and in groups. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Message } from "./csi-client.js";
import type { World } from "./world.js";
import { GIB, unique } from "./world.js";

/** Of a service without snapshots. */
export function withoutSnapshotsCases(world: () => World): void {
  it("calls about snapshots are UNIMPLEMENTED where there are none", async (t) => {
    if (await world().controllerCan("CREATE_DELETE_SNAPSHOT")) return t.skip("there are snapshots");
    await world().fails("UNIMPLEMENTED", "CreateSnapshot", { name: "x", sourceVolumeId: "y" });
    await world().fails("UNIMPLEMENTED", "DeleteSnapshot", { snapshotId: "x" });
    await world().fails("UNIMPLEMENTED", "ListSnapshots", {});
    await world().fails("UNIMPLEMENTED", "GetSnapshot", { snapshotId: "x" });
  });

  it("SnapshotMetadata is UNIMPLEMENTED where the driver knows no changed blocks", async (t) => {
    if (world().kind.tellsBlocks === true) return t.skip("the driver knows them");
    for (const [name, request] of [
      ["GetMetadataAllocated", { snapshotId: "x" }],
      ["GetMetadataDelta", { baseSnapshotId: "x", targetSnapshotId: "y" }],
    ] as const)
      await assert.rejects(world().plugin.stream(name, request), { code: "UNIMPLEMENTED" });
  });
}

export function snapshotCases(world: () => World): void {
  it("CreateSnapshot without a name or a volume is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "CreateSnapshot", { sourceVolumeId: "testId" });
    await world().fails("INVALID_ARGUMENT", "CreateSnapshot", { name: "name" });
  });

  it("CreateSnapshot with a parameter is INVALID_ARGUMENT, but for the orchestrator's", async () => {
    const { volumeId } = await world().create();
    const request = { name: unique("snap"), sourceVolumeId: volumeId };
    await world().fails("INVALID_ARGUMENT", "CreateSnapshot", {
      ...request,
      parameters: { a: "b" },
    });
    const parameters = { "csi.storage.k8s.io/volumesnapshot/name": "x" };
    const { snapshot } = await world().call("CreateSnapshot", { ...request, parameters });
    await world().call("DeleteSnapshot", { snapshotId: snapshot.snapshotId });
  });

  it("CreateSnapshot of a volume that is not there is NOT_FOUND", async () => {
    for (const sourceVolumeId of ["fake-vol-id", "..", "a/b"])
      await world().fails("NOT_FOUND", "CreateSnapshot", { name: unique("snap"), sourceVolumeId });
  });

  it("CreateSnapshot tells volume, size, time, and that it is ready", async () => {
    const { volumeId } = await world().create({ capacityRange: { requiredBytes: 2 * GIB } });
    const snapshot = await world().snapshot(volumeId);
    assert.equal(snapshot.sourceVolumeId, volumeId);
    assert.equal(snapshot.sizeBytes, 2 * GIB);
    assert.equal(snapshot.readyToUse, true);
    assert.equal(snapshot.groupSnapshotId, "");
    assert.ok(Math.abs(snapshot.creationTime.seconds - Date.now() / 1000) < 60);
  });

  it("CreateSnapshot twice answers the same snapshot", async () => {
    const { volumeId } = await world().create();
    const name = unique("snap");
    const first = await world().snapshot(volumeId, name);
    assert.deepEqual(await world().snapshot(volumeId, name), first);
  });

  it("CreateSnapshot twice of another volume is ALREADY_EXISTS", async () => {
    const first = await world().create();
    const second = await world().create();
    const name = unique("snap");
    await world().snapshot(first.volumeId, name);
    const request = { name, sourceVolumeId: second.volumeId };
    const text = await world().fails("ALREADY_EXISTS", "CreateSnapshot", request);
    assert.ok(text.includes(first.volumeId), text);
  });

  it("CreateSnapshot takes names of 128 bytes and of any characters", async () => {
    const { volumeId } = await world().create();
    await world().snapshot(volumeId, unique("n").padEnd(128, "x"));
    await world().snapshot(volumeId, `ü / .. ${unique("x")}`);
    await world().fails("INVALID_ARGUMENT", "CreateSnapshot", {
      name: "n".repeat(129),
      sourceVolumeId: volumeId,
    });
  });

  it("CreateSnapshot with one name by 6 callers at once makes one snapshot", async () => {
    const { volumeId } = await world().create();
    const name = unique("crowd");
    const results = await Promise.allSettled(
      Array.from({ length: 6 }, () => world().snapshot(volumeId, name)),
    );
    const ids = new Set<string>();
    for (const one of results)
      if (one.status === "fulfilled") ids.add(one.value.snapshotId);
      else assert.equal(one.reason.code, "ABORTED");
    assert.equal(ids.size, 1);
    const { entries } = await world().call("ListSnapshots", { sourceVolumeId: volumeId });
    assert.equal(entries.length, 1);
  });

  it("CreateSnapshot of a volume in use", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    await world().publishTo(volumeId, world().otherNode("a"));
    await world().snapshot(volumeId);
  });

  it("DeleteSnapshot without an id is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "DeleteSnapshot", {});
  });

  it("DeleteSnapshot of what is not there succeeds, and twice, too", async () => {
    for (const snapshotId of ["reallyfakesnapshotid", "..", "a/b"])
      assert.deepEqual(await world().call("DeleteSnapshot", { snapshotId }), {});
    const { volumeId } = await world().create();
    const { snapshotId } = await world().snapshot(volumeId);
    await world().call("DeleteSnapshot", { snapshotId });
    await world().call("DeleteSnapshot", { snapshotId });
    assert.ok(!(await world().snapshotIDs()).includes(snapshotId));
  });

  it("GetSnapshot answers what CreateSnapshot did, though it is not advertised by default", async () => {
    const { volumeId } = await world().create();
    const snapshot = await world().snapshot(volumeId);
    assert.deepEqual(
      (await world().call("GetSnapshot", { snapshotId: snapshot.snapshotId })).snapshot,
      snapshot,
    );
  });

  it("GetSnapshot of what is not there is NOT_FOUND, without an id INVALID_ARGUMENT", async () => {
    await world().fails("NOT_FOUND", "GetSnapshot", { snapshotId: "fake" });
    await world().fails("INVALID_ARGUMENT", "GetSnapshot", {});
  });

  it("ListSnapshots by id has that one only, or none", async () => {
    const { volumeId } = await world().create();
    await world().snapshot(volumeId);
    const { snapshotId } = await world().snapshot(volumeId);
    const { entries } = await world().call("ListSnapshots", { snapshotId });
    assert.deepEqual(
      entries.map((one: Message) => one.snapshot.snapshotId),
      [snapshotId],
    );
    for (const none of ["none-exist-id", "..", "a/b"])
      assert.deepEqual((await world().call("ListSnapshots", { snapshotId: none })).entries, []);
  });

  it("ListSnapshots by volume has those of that volume only, or none", async () => {
    const first = await world().create();
    const second = await world().create();
    const { snapshotId } = await world().snapshot(first.volumeId);
    await world().snapshot(second.volumeId);
    const { entries } = await world().call("ListSnapshots", { sourceVolumeId: first.volumeId });
    assert.deepEqual(
      entries.map((one: Message) => one.snapshot.snapshotId),
      [snapshotId],
    );
    assert.deepEqual(
      (await world().call("ListSnapshots", { sourceVolumeId: "fake-vol-id" })).entries,
      [],
    );
    const both = await world().call("ListSnapshots", {
      sourceVolumeId: second.volumeId,
      snapshotId,
    });
    assert.deepEqual(both.entries, []);
  });

  it("ListSnapshots in pages gives every snapshot once, also of one volume", async () => {
    const { volumeId } = await world().create();
    const other = await world().create();
    for (let count = 0; count < 5; count += 1) {
      await world().snapshot(volumeId);
      await world().snapshot(other.volumeId);
    }
    for (const more of [{}, { sourceVolumeId: volumeId }]) {
      const all = (await world().call("ListSnapshots", more)).entries;
      const ids: string[] = [];
      let startingToken = "";
      do {
        const page = await world().call("ListSnapshots", { ...more, maxEntries: 2, startingToken });
        ids.push(...page.entries.map((one: Message) => one.snapshot.snapshotId));
        startingToken = page.nextToken;
      } while (startingToken !== "");
      assert.deepEqual(
        ids,
        all.map((one: Message) => one.snapshot.snapshotId),
      );
    }
  });

  it("ListSnapshots with a wrong token or number", async () => {
    await world().fails("ABORTED", "ListSnapshots", { startingToken: "invalid-token" });
    await world().fails("INVALID_ARGUMENT", "ListSnapshots", { maxEntries: -1 });
  });

  it("ListSnapshots: a token stays valid while snapshots come and go", async () => {
    const { volumeId } = await world().create();
    const made: string[] = [];
    for (let count = 0; count < 4; count += 1)
      made.push((await world().snapshot(volumeId)).snapshotId);
    const page = await world().call("ListSnapshots", { sourceVolumeId: volumeId, maxEntries: 2 });
    await world().call("DeleteSnapshot", { snapshotId: made[1] });
    const rest = await world().call("ListSnapshots", {
      sourceVolumeId: volumeId,
      startingToken: page.nextToken,
    });
    assert.deepEqual(
      rest.entries.map((one: Message) => one.snapshot.snapshotId),
      made.slice(2),
    );
  });

  describe("groups", () => groupCases(world));
}

function groupCases(world: () => World): void {
  const group = async (sourceVolumeIds: readonly string[], more: object = {}): Promise<Message> => {
    const { groupSnapshot } = await world().call("CreateVolumeGroupSnapshot", {
      name: unique("group"),
      sourceVolumeIds,
      ...more,
    });
    const { groupSnapshotId } = groupSnapshot;
    world().undo(() => world().call("DeleteVolumeGroupSnapshot", { groupSnapshotId }));
    return groupSnapshot;
  };
  const two = async (): Promise<string[]> => [
    (await world().create()).volumeId,
    (await world().create()).volumeId,
  ];

  it("CreateVolumeGroupSnapshot without a name or volumes is INVALID_ARGUMENT", async () => {
    const [id = ""] = await two();
    await world().fails("INVALID_ARGUMENT", "CreateVolumeGroupSnapshot", { sourceVolumeIds: [id] });
    await world().fails("INVALID_ARGUMENT", "CreateVolumeGroupSnapshot", { name: "g" });
    await world().fails("INVALID_ARGUMENT", "CreateVolumeGroupSnapshot", {
      name: "g",
      sourceVolumeIds: [id, id],
    });
    const parameters = { consistency: "perhaps" };
    await world().fails("INVALID_ARGUMENT", "CreateVolumeGroupSnapshot", {
      name: "g",
      sourceVolumeIds: [id],
      parameters,
    });
  });

  it("CreateVolumeGroupSnapshot with a volume that is not there is NOT_FOUND and leaves nothing", async () => {
    const [id = ""] = await two();
    await world().fails("NOT_FOUND", "CreateVolumeGroupSnapshot", {
      name: unique("g"),
      sourceVolumeIds: [id, "fake"],
    });
    assert.deepEqual((await world().call("ListSnapshots", { sourceVolumeId: id })).entries, []);
  });

  it("CreateVolumeGroupSnapshot makes one snapshot of each volume", async () => {
    const ids = await two();
    const made = await group(ids);
    assert.equal(made.readyToUse, true);
    assert.deepEqual(
      made.snapshots.map((one: Message) => one.sourceVolumeId).toSorted(),
      ids.toSorted(),
    );
    for (const one of made.snapshots) assert.equal(one.groupSnapshotId, made.groupSnapshotId);
    const { entries } = await world().call("ListSnapshots", { sourceVolumeId: ids[0] });
    assert.equal(entries[0].snapshot.groupSnapshotId, made.groupSnapshotId);
  });

  it("CreateVolumeGroupSnapshot twice answers the same group", async () => {
    const ids = await two();
    const name = unique("group");
    const first = await group(ids, { name });
    const again = await group(ids.toReversed(), { name });
    assert.equal(again.groupSnapshotId, first.groupSnapshotId);
    const idsOf = (one: Message): string[] =>
      one.snapshots.map((each: Message) => each.snapshotId).toSorted();
    assert.deepEqual(idsOf(again), idsOf(first));
  });

  it("CreateVolumeGroupSnapshot twice with other volumes is ALREADY_EXISTS", async () => {
    const ids = await two();
    const { volumeId } = await world().create();
    const name = unique("group");
    await group(ids, { name });
    for (const sourceVolumeIds of [[volumeId], [...ids, volumeId], ids.slice(1)])
      await world().fails("ALREADY_EXISTS", "CreateVolumeGroupSnapshot", { name, sourceVolumeIds });
    for (const sourceVolumeId of ids) {
      const { entries } = await world().call("ListSnapshots", { sourceVolumeId });
      assert.equal(entries.length, 1, "the group is as it was");
    }
  });

  it("CreateVolumeGroupSnapshot of a volume that is written to is FAILED_PRECONDITION, and says what can be done", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const ids = await two();
    await world().publishTo(ids[0] ?? "", world().otherNode("writer"));
    const request = { name: unique("g"), sourceVolumeIds: ids };
    const text = await world().fails("FAILED_PRECONDITION", "CreateVolumeGroupSnapshot", request);
    assert.match(text, /writer.*freeze=true.*consistency=each/);
    assert.deepEqual((await world().call("ListSnapshots", { sourceVolumeId: ids[1] })).entries, []);
    const parameters = { freeze: "true" };
    await world().fails("FAILED_PRECONDITION", "CreateVolumeGroupSnapshot", {
      ...request,
      parameters,
    });
    await group(ids, { parameters: { consistency: "each" } });
  });

  it("CreateVolumeGroupSnapshot of volumes that are only read needs no freeze", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const ids = await two();
    await world().publishTo(ids[0] ?? "", world().otherNode("reader"), { readonly: true });
    await group(ids);
  });

  it("GetVolumeGroupSnapshot answers what Create did", async () => {
    const made = await group(await two());
    const { groupSnapshotId } = made;
    const { groupSnapshot } = await world().call("GetVolumeGroupSnapshot", { groupSnapshotId });
    assert.deepEqual(groupSnapshot.snapshots.length, 2);
    const snapshotIds = made.snapshots.map((one: Message) => one.snapshotId);
    await world().call("GetVolumeGroupSnapshot", { groupSnapshotId, snapshotIds });
    const lacking = { groupSnapshotId, snapshotIds: snapshotIds.slice(1) };
    await world().fails("INVALID_ARGUMENT", "GetVolumeGroupSnapshot", lacking);
    await world().fails("INVALID_ARGUMENT", "DeleteVolumeGroupSnapshot", lacking);
    const foreign = { groupSnapshotId, snapshotIds: [...snapshotIds, "fake"] };
    await world().fails("INVALID_ARGUMENT", "GetVolumeGroupSnapshot", foreign);
    await world().fails("INVALID_ARGUMENT", "DeleteVolumeGroupSnapshot", foreign);
  });

  it("GetVolumeGroupSnapshot of what is not there is NOT_FOUND, without an id INVALID_ARGUMENT", async () => {
    await world().fails("NOT_FOUND", "GetVolumeGroupSnapshot", { groupSnapshotId: "fake" });
    await world().fails("INVALID_ARGUMENT", "GetVolumeGroupSnapshot", {});
  });

  it("DeleteVolumeGroupSnapshot removes all, and again nothing", async () => {
    const ids = await two();
    const { groupSnapshotId } = await group(ids);
    for (let time = 0; time < 2; time += 1)
      await world().call("DeleteVolumeGroupSnapshot", { groupSnapshotId });
    assert.deepEqual((await world().call("ListSnapshots", { sourceVolumeId: ids[0] })).entries, []);
    await world().call("DeleteVolumeGroupSnapshot", { groupSnapshotId: "fake" });
    await world().fails("INVALID_ARGUMENT", "DeleteVolumeGroupSnapshot", {});
  });

  it("DeleteSnapshot of one of a group is INVALID_ARGUMENT", async () => {
    const made = await group(await two());
    await world().fails("INVALID_ARGUMENT", "DeleteSnapshot", {
      snapshotId: made.snapshots[0].snapshotId,
    });
  });

  it("volumes can be made from the snapshots of a group", async () => {
    const made = await group(await two());
    const volume = await world().create({
      volumeContentSource: { snapshot: { snapshotId: made.snapshots[0].snapshotId } },
    });
    assert.ok(volume.volumeId);
  });
}
