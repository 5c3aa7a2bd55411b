/** Plugins of tests that are about the plugin itself: each on a host of its own, before one server per file. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before } from "node:test";
import { startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { openTestPlugin } from "./csi-client.js";
import type { Message, TestPlugin, TestPluginOptions } from "./csi-client.js";
import { cap, unique } from "./world.js";

let server: TestServer | undefined;
let plugins = 0;

before(async () => {
  server = await startServer();
});
after(() => server?.close());

export function testServer(): TestServer {
  if (server === undefined) throw new Error("only while a test runs");
  return server;
}

export type More = Partial<TestPluginOptions>;

export async function withPlugin(
  more: More,
  act: (plugin: TestPlugin) => Promise<void>,
): Promise<void> {
  plugins += 1;
  const folder = join(testServer().folder, `host-${plugins}`);
  const plugin = await openTestPlugin({ host: testServer().host, folder, service: "vfs", ...more });
  try {
    await act(plugin);
  } finally {
    await plugin.stop(0);
  }
}

export async function made(plugin: TestPlugin, more: object = {}): Promise<Message> {
  const request = { name: unique("pvc"), volumeCapabilities: [cap()], ...more };
  return (await plugin.call("CreateVolume", request)).volume;
}

/** Attached to this node, and with a staging folder. */
export async function readyOn(
  plugin: TestPlugin,
  name = unique("staging"),
): Promise<{ volumeId: string; stagingTargetPath: string; volumeCapability: Message }> {
  const { volumeId } = await made(plugin);
  const { nodeId } = await plugin.call("NodeGetInfo");
  const volumeCapability = cap();
  await plugin.call("ControllerPublishVolume", { volumeId, nodeId, volumeCapability });
  const stagingTargetPath = join(testServer().folder, name);
  mkdirSync(stagingTargetPath);
  return { volumeId, stagingTargetPath, volumeCapability };
}

export async function removed(plugin: TestPlugin, volumeId: string): Promise<void> {
  await plugin.call("ControllerUnpublishVolume", { volumeId });
  await plugin.call("DeleteVolume", { volumeId });
}

export const names = async (plugin: TestPlugin, call: string): Promise<string[]> =>
  (await plugin.call(call)).capabilities.map(
    (one: Message) => one.rpc?.type ?? one.service?.type ?? one.volumeExpansion?.type,
  );
