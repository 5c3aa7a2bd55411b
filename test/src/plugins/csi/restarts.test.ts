/** A server that is killed and started again between the calls for a volume, and in the middle of each. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { makeFolder } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { toolsMissing } from "../../drivers/image-place.js";
import { scratchParent } from "../../faults/folders.js";
import { mountsBelow, unmountBelow } from "../docker/plugin-fixture.js";
import { openTestPlugin } from "./csi-client.js";
import type { Message, TestPlugin } from "./csi-client.js";
import { loopServiceMissing } from "./loop-service.js";
import { startServerProcess } from "./processes.js";
import type { Process } from "./processes.js";
import { cap, GIB } from "./world.js";

interface Kind {
  readonly driver: "vfs" | "image";
  readonly skip: string | false;
  readonly capability: Message;
}

/** All calls of a volume's life, in their order. */
type Life = readonly (readonly [name: string, request: object])[];

const KINDS: readonly Kind[] = [
  { driver: "vfs", skip: cannotMount(), capability: cap() },
  {
    driver: "image",
    skip: cannotMount() || loopServiceMissing() || toolsMissing("qemu-img", "mkfs.btrfs"),
    capability: cap("SINGLE_NODE_WRITER", { fsType: "btrfs" }),
  },
];

for (const { driver, skip, capability } of KINDS)
  describe(`a server that restarts under CSI: ${driver}`, { skip, timeout: 300_000 }, () => {
    let folder: string;
    let root: string;
    let file: string;
    let server: Process;
    let plugin: TestPlugin;

    before(async () => {
      folder = await makeFolder();
      root = mkdtempSync(join(scratchParent(), "csi-restarts-"));
      file = join(folder, "server.yml");
      writeFileSync(
        file,
        `libstorage:
  server:
    endpoints: { local: { address: "unix://${folder}/server.sock" } }
    services: { one: { driver: ${driver}, ${driver}: { root: "${root}" } } }
`,
      );
      server = await startServerProcess(file, folder);
      plugin = await openTestPlugin({
        host: `unix://${folder}/server.sock`,
        folder: join(folder, "host"),
        service: "one",
      });
    });
    after(async () => {
      await plugin.stop();
      await server.stop();
      await unmountBelow(folder);
      for (const one of [root, folder]) rmSync(one, { recursive: true });
    });

    const restart = async (): Promise<void> => {
      await server.stop("SIGKILL");
      server = await startServerProcess(file, folder);
    };

    async function lifeOf(name: string): Promise<{ begin: Life; end: Life; target: string }> {
      const request = {
        name,
        volumeCapabilities: [capability],
        capacityRange: { requiredBytes: GIB },
      };
      const { volumeId } = (await plugin.call("CreateVolume", request)).volume;
      const { nodeId } = await plugin.call("NodeGetInfo");
      const stagingTargetPath = join(folder, `${name}-staging`);
      const targetPath = join(folder, `${name}-target`);
      mkdirSync(stagingTargetPath);
      const volumeCapability = capability;
      const capacityRange = { requiredBytes: 2 * GIB };
      const place = { volumeId, stagingTargetPath, volumeCapability };
      return {
        target: targetPath,
        begin: [
          ["CreateVolume", request],
          ["ControllerPublishVolume", { volumeId, nodeId, volumeCapability }],
          ["NodeStageVolume", place],
          ["NodePublishVolume", { ...place, targetPath }],
          ["ControllerExpandVolume", { volumeId, capacityRange }],
          ["NodeExpandVolume", { volumeId, volumePath: targetPath, capacityRange }],
        ],
        end: [
          ["NodeUnpublishVolume", { volumeId, targetPath }],
          ["NodeUnstageVolume", place],
          ["ControllerUnpublishVolume", { volumeId, nodeId }],
          ["DeleteVolume", { volumeId }],
        ],
      };
    }

    /** @param through makes one call, with a server that goes away and comes back around it */
    async function live(
      name: string,
      through: (call: string, request: object) => Promise<void>,
    ): Promise<void> {
      const { begin, end, target } = await lifeOf(name);
      for (const [call, request] of begin) await through(call, request);
      writeFileSync(join(target, "file"), "kept");
      const { entries } = await plugin.call("ListVolumes");
      assert.equal(entries.length, 1, "it was made once");
      assert.equal(entries[0].volume.capacityBytes, 2 * GIB);
      assert.equal(entries[0].status.publishedNodeIds.length, 1);
      assert.equal((await mountsBelow(folder)).length, 2, "it is mounted once at each place");
      assert.equal(readFileSync(join(target, "file"), "utf8"), "kept");
      for (const [call, request] of end) await through(call, request);
      assert.deepEqual(await mountsBelow(folder), []);
      assert.equal(existsSync(target), false);
      assert.deepEqual((await plugin.call("ListVolumes")).entries, []);
    }

    it("between any two calls of a volume's life: none of them sees it", () =>
      live("between", async (call, request) => {
        await restart();
        await plugin.call(call, request);
      }));

    it("in the middle of every call: it is done, or says so and is done the next time", () =>
      live("during", async (call, request) => {
        const first = plugin.call(call, request).then(
          () => undefined,
          (error: Message) => error,
        );
        await restart();
        const error = await first;
        if (error !== undefined) {
          assert.match(error.code, /^(?:UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED)$/, error.message);
          assert.match(error.message, /server\.sock|restart|running/);
        }
        await plugin.call(call, request);
      }));
  });
