/** A controller and a node, each a process of its own, before one central server over mutual TLS. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { makeFolder } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { mountsBelow } from "../docker/plugin-fixture.js";
import type { Message } from "./csi-client.js";
import { makeAuthority, startPluginProcess, startServerProcess } from "./processes.js";
import type { PluginProcess, Process } from "./processes.js";
import { cap, GIB } from "./world.js";

describe("CSI over a central server with mutual TLS", { skip: cannotMount() }, () => {
  let folder: string;
  let address: string;
  let server: Process;

  before(async () => {
    folder = await makeFolder();
    for (const name of ["ours", "theirs"]) await makeAuthority(join(folder, name));
    const file = join(folder, "server.yml");
    writeFileSync(
      file,
      `libstorage:
  server:
    endpoints: { hosts: { address: "tcp://127.0.0.1:0" } }
    services: { vfs: { driver: vfs, vfs: { root: "${folder}/vfs" } } }
  tls:
    certFile: ${folder}/ours/server.crt
    keyFile: ${folder}/ours/server.key
    trustedCertsFile: ${folder}/ours/cacerts
    clientCertRequired: true
`,
    );
    server = await startServerProcess(file, folder);
    const [, port] = /https:\/\/127\.0\.0\.1:(\d+)/.exec(server.output()) ?? [];
    assert.ok(port !== undefined, server.output());
    address = `tcp://127.0.0.1:${port}`;
  });
  after(async () => {
    await server.stop();
    rmSync(folder, { recursive: true });
  });

  /** @param authority of its own certificate; `trusted`: of the server's as it expects it */
  async function withPlugin(
    name: string,
    mode: string,
    act: (plugin: PluginProcess) => Promise<void>,
    authority = "ours",
    trusted = "ours",
  ): Promise<void> {
    const args = ["--mode", mode, "--host", address, "--service", "vfs"];
    const plugin = await startPluginProcess(folder, name, args, {
      LIBSTORAGE_TLS_CERTFILE: join(folder, authority, "client.crt"),
      LIBSTORAGE_TLS_KEYFILE: join(folder, authority, "client.key"),
      LIBSTORAGE_TLS_TRUSTEDCERTSFILE: join(folder, trusted, "cacerts"),
      VFS_INSTANCEID_NAME: name,
    });
    try {
      await act(plugin);
    } finally {
      await plugin.stop();
    }
  }

  async function throughItsLife(controller: PluginProcess, node: PluginProcess): Promise<void> {
    const [volumeCapability, name] = [cap(), "central"];
    const { nodeId } = await node.call("NodeGetInfo");
    const { volume } = await controller.call("CreateVolume", {
      name,
      volumeCapabilities: [volumeCapability],
      capacityRange: { requiredBytes: GIB },
    });
    const { volumeId } = volume;
    const stagingTargetPath = join(folder, "staging");
    const targetPath = join(folder, "target");
    mkdirSync(stagingTargetPath);
    const { publishContext } = await controller.call("ControllerPublishVolume", {
      volumeId,
      nodeId,
      volumeCapability,
    });
    const place = { volumeId, stagingTargetPath, volumeCapability, publishContext };
    await node.call("NodeStageVolume", place);
    await node.call("NodePublishVolume", { ...place, targetPath });
    writeFileSync(join(targetPath, "file"), "over TLS");
    const status = async (): Promise<Message> =>
      (await controller.call("ControllerGetVolume", { volumeId })).status;
    assert.deepEqual((await status()).publishedNodeIds, [nodeId]);
    const data = readdirSync(join(folder, "vfs/vol", volumeId), { recursive: true }).map(String);
    assert.ok(data.some((one) => one.endsWith("file")));
    await assert.rejects(controller.call("DeleteVolume", { volumeId }), {
      code: "FAILED_PRECONDITION",
    });
    await node.call("NodeUnpublishVolume", { volumeId, targetPath });
    assert.equal(existsSync(targetPath), false);
    await node.call("NodeUnstageVolume", { volumeId, stagingTargetPath });
    assert.deepEqual(await mountsBelow(folder), []);
    await controller.call("ControllerUnpublishVolume", { volumeId, nodeId });
    assert.deepEqual((await status()).publishedNodeIds, []);
    await controller.call("DeleteVolume", { volumeId });
    assert.deepEqual((await controller.call("ListVolumes")).entries, []);
    assert.equal(existsSync(join(folder, "vfs/vol", volumeId)), false);
  }

  it("takes a volume through its whole life, by two plugins", async () => {
    await withPlugin("controller", "controller", (controller) =>
      withPlugin("worker-1", "node", async (node) => {
        assert.equal((await node.call("NodeGetInfo")).nodeId, "vfs:worker-1");
        await assert.rejects(node.call("ListVolumes"), { code: "UNIMPLEMENTED" });
        await assert.rejects(controller.call("NodeGetInfo"), { code: "UNIMPLEMENTED" });
        await throughItsLife(controller, node);
      }),
    );
  });

  it("refuses a plugin whose certificate is of another CA, which says so", async () => {
    const act = async (plugin: PluginProcess): Promise<void> =>
      assert.rejects(plugin.call("ListVolumes"), (error: Message) => {
        assert.match(error.message, /certificate/);
        assert.match(error.message, /CA/);
        assert.ok(error.message.includes(address), error.message);
        return true;
      });
    await withPlugin("stranger", "controller", act, "theirs", "ours");
    await withPlugin("doubter", "controller", act, "ours", "theirs");
  });
});
