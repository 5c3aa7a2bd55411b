/** What the plugin says of itself: abilities, topology, settings, ids of nodes. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, it } from "node:test";
import type { VolumeService } from "@libstorage/model";
import { CAPABILITIES, formatNodeID, parseNodeID } from "@libstorage/client/csi";
import type { SnapshotBlocks } from "@libstorage/client/csi";
import type { Message, TestPlugin } from "./csi-client.js";
import { made, names, removed, testServer, withPlugin } from "./own-plugin.js";
import { cap, GIB } from "./world.js";

describe("what the CSI plugin advertises", () => {
  it("is less where it shall be, and all where that is asked", async () => {
    await withPlugin({ settings: { "csi.hide": "none" } }, async (plugin) => {
      assert.ok((await names(plugin, "ControllerGetCapabilities")).includes("GET_SNAPSHOT"));
    });
    await withPlugin(
      { settings: { "csi.hide": "VOLUME_CONDITION, GROUP_CONTROLLER_SERVICE" } },
      async (plugin) => {
        assert.ok(!(await names(plugin, "ControllerGetCapabilities")).includes("VOLUME_CONDITION"));
        assert.ok(!(await names(plugin, "NodeGetCapabilities")).includes("VOLUME_CONDITION"));
        assert.ok(
          !(await names(plugin, "GetPluginCapabilities")).includes("GROUP_CONTROLLER_SERVICE"),
        );
      },
    );
  });

  it("is what the service can do: of one that can nothing, next to nothing", async () => {
    const wrapService = (service: VolumeService): VolumeService => ({
      ...service,
      serviceInspect: async (...args) => ({
        ...(await service.serviceInspect(...args)),
        abilities: [],
        mutable: [],
      }),
    });
    await withPlugin({ wrapService }, async (plugin) => {
      const controller = await names(plugin, "ControllerGetCapabilities");
      for (const name of [
        "CREATE_DELETE_SNAPSHOT",
        "LIST_SNAPSHOTS",
        "CLONE_VOLUME",
        "EXPAND_VOLUME",
        "GET_CAPACITY",
        "MODIFY_VOLUME",
      ])
        assert.ok(!controller.includes(name), name);
      assert.deepEqual(await names(plugin, "GetPluginCapabilities"), ["CONTROLLER_SERVICE"]);
      assert.deepEqual(await names(plugin, "GroupControllerGetCapabilities"), []);
      const { volumeId } = await made(plugin);
      const calls: [string, object][] = [
        ["CreateSnapshot", { name: "x", sourceVolumeId: volumeId }],
        ["DeleteSnapshot", { snapshotId: "x" }],
        ["ListSnapshots", {}],
        ["GetSnapshot", { snapshotId: "x" }],
        ["CreateVolumeGroupSnapshot", { name: "x", sourceVolumeIds: [volumeId] }],
        ["DeleteVolumeGroupSnapshot", { groupSnapshotId: "x" }],
        ["GetVolumeGroupSnapshot", { groupSnapshotId: "x" }],
        ["ControllerExpandVolume", { volumeId, capacityRange: { requiredBytes: 5 * GIB } }],
        ["GetCapacity", {}],
        ["ControllerModifyVolume", { volumeId, mutableParameters: {} }],
      ];
      for (const [name, request] of calls)
        await assert.rejects(plugin.call(name, request), { code: "UNIMPLEMENTED" }, name);
      const volumeContentSource = { volume: { volumeId } };
      await assert.rejects(made(plugin, { volumeContentSource }), { code: "INVALID_ARGUMENT" });
      await plugin.call("DeleteVolume", { volumeId });
    });
  });

  it("is expansion of volumes that nobody has, where the service cannot do more", async () => {
    const wrapService = (service: VolumeService): VolumeService => ({
      ...service,
      serviceInspect: async (...args) => {
        const info = await service.serviceInspect(...args);
        return { ...info, abilities: info.abilities?.filter((one) => one !== "expandOnline") };
      },
    });
    await withPlugin({}, async (plugin) => {
      assert.ok((await names(plugin, "GetPluginCapabilities")).includes("ONLINE"));
    });
    await withPlugin({ wrapService }, async (plugin) => {
      const known = await names(plugin, "GetPluginCapabilities");
      assert.ok(known.includes("OFFLINE") && !known.includes("ONLINE"));
      assert.ok((await names(plugin, "ControllerGetCapabilities")).includes("EXPAND_VOLUME"));
      const { volumeId } = await made(plugin, { capacityRange: { requiredBytes: GIB } });
      const { nodeId } = await plugin.call("NodeGetInfo");
      const request = { volumeId, nodeId, volumeCapability: cap() };
      await plugin.call("ControllerPublishVolume", request);
      const grow = (gib: number): Promise<Message> =>
        plugin.call("ControllerExpandVolume", {
          volumeId,
          capacityRange: { requiredBytes: gib * GIB },
        });
      await assert.rejects(grow(2), (error: { code: string; message: string }) => {
        assert.equal(error.code, "FAILED_PRECONDITION");
        assert.ok(error.message.includes(nodeId) && /only while nobody has/.test(error.message));
        return true;
      });
      assert.equal((await grow(1)).capacityBytes, GIB, "large enough already");
      await plugin.call("ControllerUnpublishVolume", { volumeId, nodeId });
      assert.equal((await grow(2)).capacityBytes, 2 * GIB);
      await removed(plugin, volumeId);
    });
  });

  it("changes of a volume what its service can, in its record", async () => {
    await withPlugin({ service: "mock" }, async (plugin) => {
      const { volumeId } = await made(plugin);
      const mutableParameters = { iops: "500", type: "gold", "option.Owner": "me" };
      await plugin.call("ControllerModifyVolume", { volumeId, mutableParameters });
      const params = { service: "mock", volumeID: volumeId as string };
      const { iops, type, fields } = await testServer().app.service.volumeInspect(
        params,
        undefined,
        {},
      );
      assert.deepEqual(
        { iops, type, owner: fields?.["owner"] },
        { iops: 500, type: "gold", owner: "me" },
      );
      await plugin.call("DeleteVolume", { volumeId });
    });
  });

  it("has the blocks of snapshots when a service knows them", async () => {
    const extents = [0, 10, 20, 30].map((offset) => ({ offset: offset * 4096, length: 4096 }));
    async function* all(): AsyncGenerator<{ offset: number; length: number }> {
      yield* extents;
    }
    const map = { volumeBytes: GIB, extents: { [Symbol.asyncIterator]: all } };
    const blocks: SnapshotBlocks = { allocated: async () => map, changed: async () => map };
    const settings = { "csi.hide": "none" };
    const services = (plugin: TestPlugin): Promise<string[]> =>
      names(plugin, "GetPluginCapabilities");
    await withPlugin({ settings }, async (plugin) => {
      assert.ok(!(await services(plugin)).includes("SNAPSHOT_METADATA_SERVICE"), "vfs has none");
    });
    await withPlugin({ blocks, settings }, async (plugin) => {
      assert.ok((await services(plugin)).includes("SNAPSHOT_METADATA_SERVICE"));
      const whole = await plugin.stream("GetMetadataAllocated", { snapshotId: "s" });
      assert.equal(whole.length, 1);
      assert.equal(whole[0].volumeCapacityBytes, GIB);
      assert.equal(whole[0].blockMetadataType, "VARIABLE_LENGTH");
      assert.deepEqual(
        whole[0].blockMetadata.map((one: Message) => one.byteOffset),
        extents.map(({ offset }) => offset),
      );
      const request = {
        baseSnapshotId: "a",
        targetSnapshotId: "b",
        maxResults: 1,
        startingOffset: 10 * 4096 + 96,
      };
      const parts = await plugin.stream("GetMetadataDelta", request);
      assert.equal(parts.length, 3);
      assert.deepEqual(parts[0].blockMetadata, [{ byteOffset: 10 * 4096 + 96, sizeBytes: 4000 }]);
      const fails = (name: string, more: object, code: string): Promise<void> =>
        assert.rejects(plugin.stream(name, more), { code });
      await fails("GetMetadataAllocated", {}, "INVALID_ARGUMENT");
      await fails("GetMetadataDelta", { baseSnapshotId: "a" }, "INVALID_ARGUMENT");
      await fails("GetMetadataAllocated", { snapshotId: "s", startingOffset: -1 }, "OUT_OF_RANGE");
      await fails("GetMetadataAllocated", { snapshotId: "s", maxResults: -1 }, "INVALID_ARGUMENT");
      const behind = { snapshotId: "s", startingOffset: GIB };
      const [last] = await plugin.stream("GetMetadataAllocated", behind);
      assert.deepEqual(last.blockMetadata, []);
      await fails(
        "GetMetadataAllocated",
        { snapshotId: "s", startingOffset: GIB + 1 },
        "OUT_OF_RANGE",
      );
    });
  });

  it("has a topology when one is set", async () => {
    const settings = { "csi.topology": "zone=eu1,rack=r3" };
    await withPlugin({ settings }, async (plugin) => {
      const segments = { "csi.libstorage.org/zone": "eu1", "csi.libstorage.org/rack": "r3" };
      assert.ok(
        (await names(plugin, "GetPluginCapabilities")).includes("VOLUME_ACCESSIBILITY_CONSTRAINTS"),
      );
      assert.deepEqual((await plugin.call("NodeGetInfo")).accessibleTopology, { segments });
      const here = { segments: { "CSI.libstorage.org/zone": "eu1" } };
      const there = { segments: { "csi.libstorage.org/zone": "us2" } };
      const volume = await made(plugin, {
        accessibilityRequirements: { requisite: [there, here] },
      });
      assert.deepEqual(volume.accessibleTopology, [{ segments }]);
      await plugin.call("DeleteVolume", { volumeId: volume.volumeId });
      const elsewhere = made(plugin, { accessibilityRequirements: { requisite: [there] } });
      await assert.rejects(elsewhere, { code: "RESOURCE_EXHAUSTED" });
      const { availableCapacity } = await plugin.call("GetCapacity", { accessibleTopology: here });
      assert.ok(availableCapacity > 0);
      assert.equal(
        (await plugin.call("GetCapacity", { accessibleTopology: there })).availableCapacity,
        0,
      );
    });
  });

  it("refuses settings that cannot be", async () => {
    const wrong: Record<string, string>[] = [
      { "csi.topology": "zone" },
      { "csi.topology": "a/x=1,b/y=2" },
      { "csi.driverName": "-x-" },
      { "csi.mode": "half" },
      { "csi.maxVolumesPerNode": "many" },
      { "csi.hide": "none,GET_SNAPSHOT" },
    ];
    for (const settings of wrong)
      await assert.rejects(
        withPlugin({ settings }, async () => {}),
        { code: "invalid-argument" },
        JSON.stringify(settings),
      );
  });
});

describe("the names that --hide takes", () => {
  it("are those in the documentation's table of conformance suites, too", () => {
    const text = readFileSync(new URL("../../../../docs/kubernetes.md", import.meta.url), "utf8");
    const lists = [...text.matchAll(/`--hide ([^`]+)`/g)].map(([, list = ""]) => list.split(","));
    assert.ok(lists.length >= 4);
    for (const name of lists.flat())
      assert.ok(name === "none" || CAPABILITIES.some((one) => one === name), name);
  });

  it("are those that are advertised; others are refused with the list", async () => {
    const settings = { "csi.hide": "GET_SNAPSHOT, GET_SNAPHSOT" };
    await assert.rejects(
      withPlugin({ settings }, async () => {}),
      ({ code, message }: Error & { code: string }) => {
        assert.equal(code, "invalid-argument");
        assert.match(message, /csi\.hide.*GET_SNAPHSOT/);
        for (const name of CAPABILITIES) assert.ok(message.includes(name), name);
        return true;
      },
    );
    await withPlugin({ service: "mock", settings: { "csi.hide": "none" } }, async (plugin) => {
      const said = new Set<string>(CAPABILITIES);
      for (const call of [
        "GetPluginCapabilities",
        "ControllerGetCapabilities",
        "GroupControllerGetCapabilities",
        "NodeGetCapabilities",
      ])
        for (const name of await names(plugin, call))
          assert.ok(said.has(name) || name === "ONLINE" || name === "OFFLINE", name);
    });
    await withPlugin({ settings: { "csi.hide": CAPABILITIES.join(" ") } }, async (plugin) => {
      assert.deepEqual(await names(plugin, "ControllerGetCapabilities"), []);
      assert.deepEqual(await names(plugin, "NodeGetCapabilities"), []);
    });
  });
});

describe("csi.maxVolumesPerNode", () => {
  it("is told by the node and kept by the controller, by what the node really has", async () => {
    const settings = { "csi.maxVolumesPerNode": "2" };
    await withPlugin({ settings, service: "mock" }, async (plugin) => {
      const { nodeId, maxVolumesPerNode } = await plugin.call("NodeGetInfo");
      assert.equal(maxVolumesPerNode, 2);
      const ids: string[] = [];
      for (let at = 0; at < 4; at += 1) ids.push((await made(plugin)).volumeId);
      const publish = (volumeId: string, node = nodeId): Promise<Message> =>
        plugin.call("ControllerPublishVolume", {
          volumeId,
          nodeId: node,
          volumeCapability: cap(),
        });
      const all = await Promise.allSettled(ids.map((id) => publish(id)));
      const refused = all.filter(({ status }) => status === "rejected");
      assert.equal(refused.length, 2, "of four at once, two find room");
      for (const one of refused as PromiseRejectedResult[]) {
        assert.equal(one.reason.code, "RESOURCE_EXHAUSTED", one.reason.message);
        assert.match(one.reason.message, /csi\.maxVolumesPerNode allows 2/);
      }
      const has = ids.filter((_, at) => all[at]?.status === "fulfilled");
      const [late = ""] = ids.filter((id) => !has.includes(id));
      for (const id of has) await publish(id);
      await assert.rejects(publish(late), { code: "RESOURCE_EXHAUSTED" });
      await publish(late, "mock:another-node");
      await plugin.call("ControllerUnpublishVolume", { volumeId: late });
      await plugin.call("ControllerUnpublishVolume", { volumeId: has[0], nodeId });
      await publish(late);
      for (const id of ids) await removed(plugin, id);
    });
  });
});

describe("ids of nodes", () => {
  it("hold what an exporter needs, and come back", () => {
    const id = {
      id: "web 1",
      driver: "lvm-iscsi",
      service: "",
      fields: { region: "east" },
      metadata: {
        hostName: "web-1.example.org",
        bootID: "7f9c1e0c-0000-4000-8000-000000000000",
        initiatorName: "iqn.1993-08.org.debian:01:abcdef",
        addresses: ["192.0.2.4", "2001:db8::4"],
      },
    };
    const text = formatNodeID(id);
    assert.ok(Buffer.byteLength(text) <= 256, text);
    const { bootID: _boot, ...metadata } = id.metadata;
    assert.deepEqual(parseNodeID(text, "lvm-iscsi"), { ...id, metadata });
    assert.equal(parseNodeID(text, "vfs"), undefined);
    assert.ok(!text.includes("7f9c1e0c"), "it is the same after a restart of the host");
  });

  it("have as many addresses as there is room for", () => {
    const addresses = Array.from({ length: 64 }, (_, at) => `192.0.2.${at}`);
    const metadata = {
      hostName: "n",
      initiatorName: `iqn.2000-01.x:${"y".repeat(100)}`,
      addresses,
    };
    const text = formatNodeID({ id: "n", driver: "lvm-iscsi", service: "", metadata });
    assert.ok(Buffer.byteLength(text) <= 256);
    const facts = parseNodeID(text, "lvm-iscsi")?.metadata as { addresses: string[] };
    assert.ok(facts.addresses.length > 3);
  });
});
