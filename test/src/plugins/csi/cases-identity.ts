/** The Identity service, and what the others say of themselves. */
import assert from "node:assert/strict";
import { it } from "node:test";
import { DRIVER_NAME, SPEC_VERSION } from "@libstorage/client/csi";
import type { Message } from "./csi-client.js";
import type { World } from "./world.js";

const CONTROLLER_NAMES = new Set(
  `CREATE_DELETE_VOLUME PUBLISH_UNPUBLISH_VOLUME LIST_VOLUMES GET_CAPACITY CREATE_DELETE_SNAPSHOT
   LIST_SNAPSHOTS CLONE_VOLUME PUBLISH_READONLY EXPAND_VOLUME LIST_VOLUMES_PUBLISHED_NODES
   VOLUME_CONDITION GET_VOLUME SINGLE_NODE_MULTI_WRITER MODIFY_VOLUME GET_SNAPSHOT`.split(/\s+/),
);
const NODE_NAMES = new Set(
  `STAGE_UNSTAGE_VOLUME GET_VOLUME_STATS EXPAND_VOLUME VOLUME_CONDITION SINGLE_NODE_MULTI_WRITER
   VOLUME_MOUNT_GROUP`.split(/\s+/),
);

export function identityCases(world: () => World): void {
  it("GetPluginInfo tells a domain name, a version and the specification's", async () => {
    const info = await world().call("GetPluginInfo");
    assert.equal(info.name, DRIVER_NAME);
    assert.match(info.name, /^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$/);
    assert.match(info.vendorVersion, /^\d+\.\d+\.\d+/);
    assert.equal(info.manifest["csi.specification"], SPEC_VERSION);
  });

  it("GetPluginCapabilities names the controller, and expansion online where there is any", async () => {
    const { capabilities } = await world().call("GetPluginCapabilities");
    const services = capabilities.map((one: Message) => one.service?.type).filter(Boolean);
    assert.ok(services.includes("CONTROLLER_SERVICE"));
    const expansion = capabilities.map((one: Message) => one.volumeExpansion?.type).filter(Boolean);
    assert.deepEqual(expansion, (await world().controllerCan("EXPAND_VOLUME")) ? ["ONLINE"] : []);
    assert.ok(!services.includes("SNAPSHOT_METADATA_SERVICE"), "too new, unless it is asked for");
    assert.ok(!services.includes("VOLUME_ACCESSIBILITY_CONSTRAINTS"), "no topology is set");
  });

  it("GetPluginCapabilities says the same twice", async () => {
    const first = await world().call("GetPluginCapabilities");
    assert.deepEqual(await world().call("GetPluginCapabilities"), first);
  });

  it("Probe answers ready", async () => {
    assert.deepEqual(await world().call("Probe"), { ready: { value: true } });
  });

  it("ControllerGetCapabilities has only names of the specification, each once", async () => {
    const { capabilities } = await world().call("ControllerGetCapabilities");
    const names = capabilities.map((one: Message) => one.rpc.type);
    for (const name of names) assert.ok(CONTROLLER_NAMES.has(name), name);
    assert.equal(new Set(names).size, names.length);
    assert.ok(names.includes("CREATE_DELETE_VOLUME"));
  });

  it("ControllerGetCapabilities does not name what older orchestrators do not know, unless asked to", async () => {
    assert.equal(await world().controllerCan("GET_SNAPSHOT"), false);
  });

  it("NodeGetCapabilities has only names of the specification, each once", async () => {
    const { capabilities } = await world().call("NodeGetCapabilities");
    const names = capabilities.map((one: Message) => one.rpc.type);
    for (const name of names) assert.ok(NODE_NAMES.has(name), name);
    assert.equal(new Set(names).size, names.length);
  });

  it("GroupControllerGetCapabilities goes with the plugin's", async () => {
    const { capabilities } = await world().call("GetPluginCapabilities");
    const has = capabilities.some(
      (one: Message) => one.service?.type === "GROUP_CONTROLLER_SERVICE",
    );
    const group = await world().call("GroupControllerGetCapabilities");
    assert.deepEqual(
      group.capabilities.map((one: Message) => one.rpc.type),
      has ? ["CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"] : [],
    );
  });

  it("a snapshot cannot be made without being a source of volumes", async () => {
    if (!(await world().controllerCan("CREATE_DELETE_SNAPSHOT"))) return;
    assert.ok(await world().controllerCan("LIST_SNAPSHOTS"));
    assert.ok(await world().controllerCan("CREATE_DELETE_VOLUME"));
  });

  it("LIST_VOLUMES_PUBLISHED_NODES goes with PUBLISH_UNPUBLISH_VOLUME", async () => {
    if (!(await world().controllerCan("LIST_VOLUMES_PUBLISHED_NODES"))) return;
    assert.ok(await world().controllerCan("PUBLISH_UNPUBLISH_VOLUME"));
  });

  it("NodeGetInfo names the node within 256 bytes, and the same one again", async () => {
    const info = await world().call("NodeGetInfo");
    assert.ok(info.nodeId.startsWith(`${world().kind.driver}:`), info.nodeId);
    assert.ok(Buffer.byteLength(info.nodeId) <= 256);
    assert.ok(info.maxVolumesPerNode >= 0);
    assert.equal(info.accessibleTopology, null);
    assert.deepEqual(await world().call("NodeGetInfo"), info);
  });
}
