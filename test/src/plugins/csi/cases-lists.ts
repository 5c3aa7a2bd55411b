/** Lists and their pages, single volumes, capacity, validation. */
import assert from "node:assert/strict";
import { it } from "node:test";
import type { Message } from "./csi-client.js";
import type { World } from "./world.js";
import { blockCap, cap, GIB } from "./world.js";

const BAD_TOKENS = ["invalid-token", "1", "1.x.y", "1.AAAAAAAA.dm9s", "…", "2.AAAAAAAA.dm9s.x"];

export function listCases(world: () => World): void {
  it("ListVolumes has every volume once, with its size", async () => {
    const volume = await world().create({ capacityRange: { requiredBytes: 2 * GIB } });
    const { entries, nextToken } = await world().call("ListVolumes");
    const found = entries.filter((one: Message) => one.volume.volumeId === volume.volumeId);
    assert.equal(found.length, 1);
    assert.equal(found[0].volume.capacityBytes, 2 * GIB);
    assert.equal(nextToken, "");
  });

  it("ListVolumes with a token that is none is ABORTED", async () => {
    for (const startingToken of BAD_TOKENS)
      await world().fails("ABORTED", "ListVolumes", { startingToken });
  });

  it("ListVolumes with a token of the other list is ABORTED", async (t) => {
    if (!(await world().controllerCan("LIST_SNAPSHOTS")))
      return t.skip("the service has no snapshots");
    const { volumeId } = await world().create();
    await world().snapshot(volumeId);
    await world().snapshot(volumeId);
    const { nextToken } = await world().call("ListSnapshots", { maxEntries: 1 });
    await world().fails("ABORTED", "ListVolumes", { startingToken: nextToken });
  });

  it("ListVolumes with a negative number of entries is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "ListVolumes", { maxEntries: -1 });
  });

  it("ListVolumes in pages gives every volume once", async () => {
    for (let count = 0; count < 5; count += 1) await world().create();
    const all = await world().volumeIDs();
    for (const maxEntries of [1, 2, 3, all.length, all.length + 1]) {
      const ids: string[] = [];
      let startingToken = "";
      do {
        const page = await world().call("ListVolumes", { maxEntries, startingToken });
        assert.ok(page.entries.length <= maxEntries);
        ids.push(...page.entries.map((one: Message) => one.volume.volumeId));
        startingToken = page.nextToken;
      } while (startingToken !== "");
      assert.deepEqual(ids, all, `${maxEntries} at a time`);
    }
  });

  it("ListVolumes: a token gives all that is left when no number is asked", async () => {
    for (let count = 0; count < 3; count += 1) await world().create();
    const all = await world().volumeIDs();
    const { nextToken } = await world().call("ListVolumes", { maxEntries: 2 });
    const rest = await world().call("ListVolumes", { startingToken: nextToken });
    assert.equal(rest.entries.length, all.length - 2);
    assert.equal(rest.nextToken, "");
  });

  it("ListVolumes: a token stays valid while volumes come and go, the last of its page among them", async () => {
    for (let count = 0; count < 4; count += 1) await world().create();
    const before = await world().volumeIDs();
    const first = await world().call("ListVolumes", { maxEntries: before.length - 2 });
    const listed = first.entries.map((one: Message) => one.volume.volumeId);
    const mine = listed.at(-1);
    await world().call("DeleteVolume", { volumeId: mine });
    const added = await world().create();
    const rest = await world().call("ListVolumes", { startingToken: first.nextToken });
    const ids = rest.entries.map((one: Message) => one.volume.volumeId);
    assert.deepEqual(ids, [...before.slice(-2), added.volumeId]);
  });

  it("ListVolumes names the nodes of each volume", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    await world().publishTo(volumeId, world().otherNode("far"));
    const { entries } = await world().call("ListVolumes");
    const entry = entries.find((one: Message) => one.volume.volumeId === volumeId);
    assert.deepEqual(entry.status.publishedNodeIds, [world().otherNode("far")]);
    assert.equal(entry.status.volumeCondition.abnormal, false);
    assert.notEqual(entry.status.volumeCondition.message, "");
  });

  // ---- ControllerGetVolume

  it("ControllerGetVolume tells the volume, its nodes and its condition", async () => {
    const volume = await world().create();
    const reply = await world().call("ControllerGetVolume", { volumeId: volume.volumeId });
    assert.deepEqual(reply.volume, volume);
    assert.deepEqual(reply.status.publishedNodeIds, []);
    assert.equal(reply.status.volumeCondition.abnormal, false);
  });

  it("ControllerGetVolume of what is not there is NOT_FOUND", async () => {
    for (const volumeId of ["fake-vol-id", "..", "a/b"])
      await world().fails("NOT_FOUND", "ControllerGetVolume", { volumeId });
  });

  it("ControllerGetVolume without an id is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "ControllerGetVolume", {});
  });

  // ---- GetCapacity

  it("GetCapacity tells what is free, the least and the most", async (t) => {
    if (!(await world().controllerCan("GET_CAPACITY"))) return t.skip("the driver cannot tell");
    const reply = await world().call("GetCapacity");
    assert.ok(reply.availableCapacity >= 0);
    assert.equal(reply.minimumVolumeSize.value, GIB);
    assert.ok(reply.maximumVolumeSize.value >= 0);
  });

  it("GetCapacity is nothing for what cannot be had", async (t) => {
    if (!(await world().controllerCan("GET_CAPACITY"))) return t.skip("the driver cannot tell");
    if (world().kind.isBlock) return t.skip("these volumes can be devices");
    const { availableCapacity } = await world().call("GetCapacity", {
      volumeCapabilities: [blockCap()],
    });
    assert.equal(availableCapacity, 0);
  });

  it("GetCapacity with a wrong capability or parameter is INVALID_ARGUMENT", async (t) => {
    if (!(await world().controllerCan("GET_CAPACITY"))) return t.skip("the driver cannot tell");
    await world().fails("INVALID_ARGUMENT", "GetCapacity", { volumeCapabilities: [{ mount: {} }] });
    await world().fails("INVALID_ARGUMENT", "GetCapacity", { parameters: { unknown: "x" } });
  });

  it("GetCapacity is UNIMPLEMENTED where it is not advertised", async (t) => {
    if (await world().controllerCan("GET_CAPACITY")) return t.skip("it is advertised");
    await world().fails("UNIMPLEMENTED", "GetCapacity", {});
  });

  // ---- ValidateVolumeCapabilities

  it("ValidateVolumeCapabilities without a volume is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "ValidateVolumeCapabilities", {
      volumeCapabilities: [cap()],
    });
  });

  it("ValidateVolumeCapabilities without capabilities is INVALID_ARGUMENT", async () => {
    const { volumeId } = await world().create();
    await world().fails("INVALID_ARGUMENT", "ValidateVolumeCapabilities", { volumeId });
  });

  it("ValidateVolumeCapabilities of what is not there is NOT_FOUND", async () => {
    await world().fails("NOT_FOUND", "ValidateVolumeCapabilities", {
      volumeId: "fake-vol-id",
      volumeCapabilities: [cap()],
    });
  });

  it("ValidateVolumeCapabilities confirms exactly what was asked", async () => {
    const { volumeId } = await world().create();
    const volumeCapabilities = [cap(), cap("SINGLE_NODE_READER_ONLY", { mountFlags: ["noatime"] })];
    const { confirmed, message } = await world().call("ValidateVolumeCapabilities", {
      volumeId,
      volumeCapabilities,
    });
    assert.equal(message, "");
    assert.equal(confirmed.volumeCapabilities.length, 2);
    assert.equal(confirmed.volumeCapabilities[1].accessMode.mode, "SINGLE_NODE_READER_ONLY");
    assert.deepEqual(confirmed.volumeCapabilities[1].mount.mountFlags, ["noatime"]);
  });

  it("ValidateVolumeCapabilities says why it does not confirm", async () => {
    const { volumeId } = await world().create();
    const wanted = world().kind.isBlock ? cap("MULTI_NODE_MULTI_WRITER") : blockCap();
    const reply = await world().call("ValidateVolumeCapabilities", {
      volumeId,
      volumeCapabilities: [wanted],
    });
    assert.equal(reply.confirmed, null);
    assert.ok(reply.message.length > 20);
  });

  it("ValidateVolumeCapabilities does not confirm parameters or a context that it does not know", async () => {
    const { volumeId } = await world().create();
    for (const more of [
      { parameters: { unknown: "x" } },
      { volumeContext: { a: "b" } },
      { mutableParameters: { a: "b" } },
    ]) {
      const reply = await world().call("ValidateVolumeCapabilities", {
        volumeId,
        volumeCapabilities: [cap()],
        ...more,
      });
      assert.equal(reply.confirmed, null);
      assert.notEqual(reply.message, "");
    }
  });
  it("ValidateVolumeCapabilities confirms several nodes only of a volume that was made for them", async () => {
    const several = world().kind.isBlock
      ? ["MULTI_NODE_READER_ONLY"]
      : ["MULTI_NODE_READER_ONLY", "MULTI_NODE_SINGLE_WRITER", "MULTI_NODE_MULTI_WRITER"];
    for (const mode of several)
      for (const madeFor of ["SINGLE_NODE_WRITER", mode]) {
        const { volumeId } = await world().create({ volumeCapabilities: [cap(madeFor)] });
        const { confirmed, message } = await world().call("ValidateVolumeCapabilities", {
          volumeId,
          volumeCapabilities: [cap(), cap(mode)],
        });
        assert.equal(confirmed !== null, madeFor === mode, `${mode} of one made for ${madeFor}`);
        assert.equal(/one node at a time/.test(message), madeFor !== mode, message);
      }
  });
}
