/** A mount that does not end, and what is told of it: mount flags may be secrets. */
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";
import { startServer } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { scratchParent } from "../../faults/folders.js";
import { openTestPlugin } from "./csi-client.js";
import type { Failed } from "./csi-client.js";
import { LOOP_DRIVER, loopDriver, loopServiceAt, loopServiceMissing } from "./loop-service.js";
import { cap, GIB } from "./world.js";

const SECRET = "hunter2-never-to-be-seen";

describe("a mount that hangs", { skip: cannotMount() || loopServiceMissing() }, () => {
  it("is named without its flags", async () => {
    const loops = loopDriver();
    const images = mkdtempSync(join(scratchParent(), "csi-hung-"));
    const server = await startServer({
      drivers: { [LOOP_DRIVER]: loops.module },
      config: loopServiceAt(images),
    });
    const exec: Exec = (file, args, options) =>
      file === "mount" ? runCommand("sleep", ["100"], options) : runCommand(file, args, options);
    const plugin = await openTestPlugin({
      host: server.host,
      folder: join(server.folder, "host"),
      service: "devices",
      places: loops.devices().places,
      settings: { "csi.changeTimeout": "2s" },
      exec,
    });
    try {
      const { nodeId } = await plugin.call("NodeGetInfo");
      const volumeCapability = cap("SINGLE_NODE_WRITER", {
        fsType: "ext4",
        mountFlags: [`password=${SECRET}`, SECRET],
      });
      const { volume } = await plugin.call("CreateVolume", {
        name: "hung",
        volumeCapabilities: [volumeCapability],
        capacityRange: { requiredBytes: GIB },
      });
      const { volumeId } = volume;
      await plugin.call("ControllerPublishVolume", { volumeId, nodeId, volumeCapability });
      const stagingTargetPath = join(server.folder, "staging");
      mkdirSync(stagingTargetPath);
      const request = { volumeId, stagingTargetPath, volumeCapability };
      await assert.rejects(plugin.call("NodeStageVolume", request), ({ code, message }: Failed) => {
        assert.equal(code, "DEADLINE_EXCEEDED");
        assert.match(message, /it waited for "mount -t ext4 -o … -- \/dev\//);
        assert.ok(!message.includes(SECRET), message);
        return true;
      });
      assert.ok(!JSON.stringify(plugin.log).includes(SECRET));
      await plugin.call("NodeUnstageVolume", request);
      await plugin.call("ControllerUnpublishVolume", { volumeId });
      await plugin.call("DeleteVolume", { volumeId });
    } finally {
      await plugin.stop();
      await server.close();
      rmSync(images, { recursive: true, force: true });
    }
  });
});
