/** ControllerPublishVolume and ControllerUnpublishVolume: who may have a volume. */
import assert from "node:assert/strict";
import { it } from "node:test";
import { DRIVER_NAME } from "@libstorage/client/csi";
import type { World } from "./world.js";
import { blockCap, cap } from "./world.js";

export function publishCases(world: () => World): void {
  const publish = (
    volumeId: string,
    node: string,
    mode?: string,
    more: object = {},
  ): Promise<unknown> =>
    world().publishTo(volumeId, world().otherNode(node), { volumeCapability: cap(mode), ...more });
  const refused = (
    volumeId: string,
    node: string,
    mode?: string,
    more: object = {},
  ): Promise<string> =>
    world().fails("FAILED_PRECONDITION", "ControllerPublishVolume", {
      volumeId,
      nodeId: world().otherNode(node),
      volumeCapability: cap(mode),
      ...more,
    });
  /** Modes for several nodes go with file systems on folders only; on devices with the device itself. */
  const many = (mode: string): object =>
    world().kind.isBlock ? { block: {}, accessMode: { mode } } : cap(mode);

  it("ControllerPublishVolume without a volume, a node or a capability is INVALID_ARGUMENT", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    const nodeId = world().otherNode("a");
    const volumeCapability = cap();
    for (const request of [
      { nodeId, volumeCapability },
      { volumeId, volumeCapability },
      { volumeId, nodeId },
      { volumeId, nodeId, volumeCapability: { mount: {} } },
      { volumeId, nodeId, volumeCapability: { accessMode: { mode: "SINGLE_NODE_WRITER" } } },
      { volumeId, nodeId: `${nodeId}${"x".repeat(256)}`, volumeCapability },
    ])
      await world().fails("INVALID_ARGUMENT", "ControllerPublishVolume", request);
  });

  it("what an orchestrator notes in volume_context is taken along, by every call that gets it", async () => {
    const volumeContext = {
      "storage.kubernetes.io/csiProvisionerIdentity": "1700000000000-8081-csi.libstorage.org",
      "csi.storage.k8s.io/pod.name": "web-0",
      "csi.storage.k8s.io/ephemeral": "false",
      "csi.nomad/job": "web",
      "example.com/anything": "",
    };
    const { volumeId } = await world().create();
    const nodeId = await world().nodeID();
    const volumeCapability = cap();
    await world().publishTo(volumeId, nodeId, { volumeContext });
    const { confirmed, message } = await world().call("ValidateVolumeCapabilities", {
      volumeId,
      volumeContext,
      volumeCapabilities: [volumeCapability],
    });
    assert.equal(message, "");
    assert.deepEqual(confirmed.volumeContext, volumeContext);
    if (world().kind.noMounts !== false) return;
    const staging = await world().stage(volumeId, { volumeContext });
    await world().publish(volumeId, staging, { volumeContext });
  });

  it("a volume_context that only this plugin could have given is INVALID_ARGUMENT, with its key", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    for (const key of ["a", `${DRIVER_NAME}/a`]) {
      const text = await world().fails("INVALID_ARGUMENT", "ControllerPublishVolume", {
        volumeId,
        nodeId: world().otherNode("a"),
        volumeCapability: cap(),
        volumeContext: { "storage.kubernetes.io/csiProvisionerIdentity": "x", [key]: "b" },
      });
      assert.ok(text.includes(JSON.stringify(key)), text);
    }
  });

  it("ControllerPublishVolume of what is not there is NOT_FOUND", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const request = {
      volumeId: "fake-vol-id",
      nodeId: world().otherNode("a"),
      volumeCapability: cap(),
    };
    await world().fails("NOT_FOUND", "ControllerPublishVolume", request);
  });

  it("ControllerPublishVolume to a node that is none is NOT_FOUND", async () => {
    const { volumeId } = await world().create();
    for (const nodeId of [
      "fake-node-id",
      "some-host",
      "other-driver:host",
      `${world().kind.driver}:`,
      `${world().kind.driver}:%zz`,
    ])
      await world().fails("NOT_FOUND", "ControllerPublishVolume", {
        volumeId,
        nodeId,
        volumeCapability: cap(),
      });
    const { status } = await world().call("ControllerGetVolume", { volumeId });
    assert.deepEqual(status.publishedNodeIds, []);
  });

  it("ControllerPublishVolume twice answers the same", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    const first = await publish(volumeId, "a");
    assert.deepEqual(await publish(volumeId, "a"), first);
  });

  it("ControllerPublishVolume again read-only is ALREADY_EXISTS", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    await publish(volumeId, "a");
    await world().fails("ALREADY_EXISTS", "ControllerPublishVolume", {
      volumeId,
      nodeId: world().otherNode("a"),
      volumeCapability: cap(),
      readonly: true,
    });
  });

  it("ControllerPublishVolume again in another mode is ALREADY_EXISTS", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    await publish(volumeId, "a");
    await world().fails("ALREADY_EXISTS", "ControllerPublishVolume", {
      volumeId,
      nodeId: world().otherNode("a"),
      volumeCapability: cap("SINGLE_NODE_READER_ONLY"),
    });
  });

  it("ControllerPublishVolume to a second node is FAILED_PRECONDITION, and names the first", async (t) => {
    if (world().skipsFarNodes(t)) return;
    for (const mode of [
      "SINGLE_NODE_WRITER",
      "SINGLE_NODE_READER_ONLY",
      "SINGLE_NODE_SINGLE_WRITER",
      "SINGLE_NODE_MULTI_WRITER",
    ]) {
      const { volumeId } = await world().create({ volumeCapabilities: [cap(mode)] });
      await publish(volumeId, "first-node", mode);
      const text = await refused(volumeId, "second-node", mode);
      assert.ok(text.includes(world().otherNode("first-node")), text);
    }
  });

  it("ControllerPublishVolume for several readers lets them all in", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const mode = "MULTI_NODE_READER_ONLY";
    const { volumeId } = await world().create({ volumeCapabilities: [cap(mode)] });
    for (const node of ["a", "b", "c"]) await publish(volumeId, node, mode);
    const { status } = await world().call("ControllerGetVolume", { volumeId });
    assert.deepEqual(
      status.publishedNodeIds.toSorted(),
      ["a", "b", "c"].map((one) => world().otherNode(one)),
    );
  });

  it("ControllerPublishVolume for a single writer lets readers in, and one writer", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const volumeCapability = many("MULTI_NODE_SINGLE_WRITER");
    const { volumeId } = await world().create({ volumeCapabilities: [volumeCapability] });
    await publish(volumeId, "reader", undefined, { volumeCapability, readonly: true });
    await publish(volumeId, "writer", undefined, { volumeCapability });
    const text = await refused(volumeId, "late-writer", undefined, { volumeCapability });
    assert.ok(text.includes(world().otherNode("writer")), text);
    await publish(volumeId, "late-reader", undefined, { volumeCapability, readonly: true });
  });

  it("ControllerPublishVolume for several writers lets them in", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const volumeCapability = many("MULTI_NODE_MULTI_WRITER");
    const { volumeId } = await world().create({ volumeCapabilities: [volumeCapability] });
    for (const node of ["a", "b"]) await publish(volumeId, node, undefined, { volumeCapability });
  });

  it("ControllerPublishVolume in a mode for one node is refused while others have it", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const volumeCapability = many("MULTI_NODE_MULTI_WRITER");
    const { volumeId } = await world().create({ volumeCapabilities: [volumeCapability] });
    await publish(volumeId, "a", undefined, { volumeCapability });
    await refused(volumeId, "b", "SINGLE_NODE_WRITER");
  });

  it("ControllerPublishVolume of a volume made for one node does not let a second in, whatever it says", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    const volumeCapability = many("MULTI_NODE_MULTI_WRITER");
    await publish(volumeId, "a", undefined, { volumeCapability });
    await refused(volumeId, "b", undefined, { volumeCapability });
  });

  it("ControllerPublishVolume to 6 nodes at once lets one in", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    const nodes = ["a", "b", "c", "d", "e", "f"];
    const results = await Promise.allSettled(nodes.map((node) => publish(volumeId, node)));
    assert.equal(results.filter(({ status }) => status === "fulfilled").length, 1);
    for (const one of results)
      if (one.status === "rejected") assert.match(one.reason.code, /ABORTED|FAILED_PRECONDITION/);
    const { status } = await world().call("ControllerGetVolume", { volumeId });
    assert.equal(status.publishedNodeIds.length, 1);
  });

  it("ControllerPublishVolume as a device is INVALID_ARGUMENT where volumes are folders", async (t) => {
    if (world().skipsFarNodes(t)) return;
    if (world().kind.isBlock) return t.skip("these volumes can be devices");
    const { volumeId } = await world().create();
    const request = { volumeId, nodeId: world().otherNode("a"), volumeCapability: blockCap() };
    await world().fails("INVALID_ARGUMENT", "ControllerPublishVolume", request);
  });

  it("ControllerUnpublishVolume without a volume is INVALID_ARGUMENT", async () => {
    await world().fails("INVALID_ARGUMENT", "ControllerUnpublishVolume", { nodeId: "x" });
  });

  it("ControllerUnpublishVolume frees the volume for the next node", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    await publish(volumeId, "a");
    await world().call("ControllerUnpublishVolume", { volumeId, nodeId: world().otherNode("a") });
    await publish(volumeId, "b");
  });

  it("ControllerUnpublishVolume twice, of a volume or from a node that are none, succeeds", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const { volumeId } = await world().create();
    await publish(volumeId, "a");
    for (const request of [
      { volumeId, nodeId: world().otherNode("nobody") },
      { volumeId, nodeId: "fake-node-id" },
      { volumeId: "fake-vol-id", nodeId: world().otherNode("a") },
      { volumeId: "..", nodeId: "" },
    ])
      assert.deepEqual(await world().call("ControllerUnpublishVolume", request), {});
    const { status } = await world().call("ControllerGetVolume", { volumeId });
    assert.deepEqual(status.publishedNodeIds, [world().otherNode("a")]);
    for (let time = 0; time < 2; time += 1)
      await world().call("ControllerUnpublishVolume", { volumeId, nodeId: world().otherNode("a") });
  });

  it("ControllerUnpublishVolume without a node takes it from all", async (t) => {
    if (world().skipsFarNodes(t)) return;
    const mode = "MULTI_NODE_READER_ONLY";
    const { volumeId } = await world().create({ volumeCapabilities: [cap(mode)] });
    for (const node of ["a", "b"]) await publish(volumeId, node, mode);
    await world().call("ControllerUnpublishVolume", { volumeId });
    const { status } = await world().call("ControllerGetVolume", { volumeId });
    assert.deepEqual(status.publishedNodeIds, []);
  });
}
