/** What the plugin does while the server is away, and after it has been away itself. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { cannotMount } from "../../client/host-fixture.js";
import { made, readyOn, removed, testServer, withPlugin } from "./own-plugin.js";
import { cap, unique } from "./world.js";

describe("the CSI plugin while its server is away", () => {
  const ready = { ready: { value: true } };
  const away = async (act: () => Promise<void>): Promise<void> => {
    testServer().intercept = (_req, res) => {
      res.destroy();
      return true;
    };
    try {
      await act();
    } finally {
      testServer().intercept = undefined;
    }
  };

  it("says so, is ready all the same, since a restart would not help, and comes back by itself", async () => {
    await withPlugin({}, async (plugin) => {
      await away(async () => {
        await assert.rejects(made(plugin), { code: "UNAVAILABLE" });
        await assert.rejects(plugin.call("ListVolumes"), { code: "UNAVAILABLE" });
        assert.deepEqual(await plugin.call("Probe"), ready);
        await plugin.call("GetPluginInfo");
      });
      await removed(plugin, (await made(plugin)).volumeId);
    });
  });

  it("is ready as a node from the first moment on, and as a controller once it has reached the server", async () => {
    await withPlugin({ settings: { "csi.mode": "node" } }, async (plugin) => {
      await away(async () => assert.deepEqual(await plugin.call("Probe"), ready));
    });
    await withPlugin({ settings: { "csi.mode": "controller" } }, async (plugin) => {
      const notYet = { ready: { value: false } };
      await away(async () => {
        assert.deepEqual(await plugin.call("Probe"), notYet);
        assert.deepEqual(await plugin.call("Probe"), notYet);
      });
      assert.deepEqual(await plugin.call("Probe"), ready);
      await away(async () => assert.deepEqual(await plugin.call("Probe"), ready));
    });
  });

  it("a volume whose answer was lost is made once", async () => {
    await withPlugin({}, async (plugin) => {
      const name = unique("lost");
      const request = { name, volumeCapabilities: [cap()] };
      const before = (await plugin.call("ListVolumes")).entries.length;
      let cuts = 0;
      testServer().intercept = (req, res) => {
        if (req.method === "POST" && cuts < 1) {
          cuts += 1;
          res.end = (() => res.destroy()) as typeof res.end;
        }
        return false;
      };
      try {
        const first = await plugin.call("CreateVolume", request).catch(() => undefined);
        const { volume } = await plugin.call("CreateVolume", request);
        if (first !== undefined) assert.equal(first.volume.volumeId, volume.volumeId);
        assert.equal(cuts, 1);
        assert.equal((await plugin.call("ListVolumes")).entries.length, before + 1);
        await removed(plugin, volume.volumeId);
      } finally {
        testServer().intercept = undefined;
      }
    });
  });

  it("still unpublishes and unstages", { skip: cannotMount() }, async () => {
    await withPlugin({}, async (plugin) => {
      const ready = await readyOn(plugin);
      const { volumeId, stagingTargetPath } = ready;
      const targetPath = join(testServer().folder, unique("target"));
      await plugin.call("NodeStageVolume", ready);
      await plugin.call("NodePublishVolume", { ...ready, targetPath });
      testServer().intercept = (_req, res) => {
        res.destroy();
        return true;
      };
      try {
        await plugin.call("NodeUnpublishVolume", { volumeId, targetPath });
        await plugin.call("NodeUnstageVolume", { volumeId, stagingTargetPath });
      } finally {
        testServer().intercept = undefined;
      }
      assert.ok(!existsSync(targetPath));
      await removed(plugin, volumeId);
    });
  });
});

describe("the CSI plugin's records", { skip: cannotMount() }, () => {
  it("outlive the plugin: the next one knows what is staged and published", async () => {
    const folder = join(testServer().folder, "restarted");
    let ready: Awaited<ReturnType<typeof readyOn>> | undefined;
    const targetPath = join(testServer().folder, unique("target"));
    await withPlugin({ folder }, async (plugin) => {
      ready = await readyOn(plugin);
      await plugin.call("NodeStageVolume", ready);
      await plugin.call("NodePublishVolume", { ...ready, targetPath });
    });
    await withPlugin({ folder }, async (plugin) => {
      assert.ok(ready !== undefined);
      await plugin.call("NodeStageVolume", ready);
      await plugin.call("NodePublishVolume", { ...ready, targetPath });
      const other = { ...ready, targetPath: `${targetPath}-2` };
      await assert.rejects(plugin.call("NodePublishVolume", other), {
        code: "FAILED_PRECONDITION",
      });
      await plugin.call("NodeUnpublishVolume", { volumeId: ready.volumeId, targetPath });
      await plugin.call("NodeUnstageVolume", ready);
      await removed(plugin, ready.volumeId);
    });
  });

  it("that are broken are named, and nothing is done", async () => {
    await withPlugin({}, async (plugin) => {
      const ready = await readyOn(plugin);
      await plugin.call("NodeStageVolume", ready);
      const folder = join(plugin.socket, "../var/lib/csi/csi.libstorage.org");
      const file = join(folder, `${ready.volumeId}.json`);
      const text = readFileSync(file, "utf8");
      for (const broken of ["{", "[]", text.replace(ready.volumeId, "vfs-999")]) {
        writeFileSync(file, broken);
        await assert.rejects(
          plugin.call("NodeUnstageVolume", ready),
          (error: Error & { code: string }) =>
            error.code === "DATA_LOSS" && error.message.includes(file),
        );
      }
      // As a loss of power leaves one, after which there would be no mount either.
      writeFileSync(file, "");
      await assert.rejects(
        plugin.call("NodeUnstageVolume", ready),
        (error: Error & { code: string }) =>
          error.code === "FAILED_PRECONDITION" && error.message.includes(ready.stagingTargetPath),
      );
      writeFileSync(file, text);
      await plugin.call("NodeUnstageVolume", ready);
      await removed(plugin, ready.volumeId);
    });
  });

  it("of an earlier start of the host mean nothing is mounted any more", async () => {
    await withPlugin({}, async (plugin) => {
      const ready = await readyOn(plugin);
      const targetPath = join(testServer().folder, unique("target"));
      await plugin.call("NodeStageVolume", ready);
      await plugin.call("NodePublishVolume", { ...ready, targetPath });
      await plugin.call("NodeUnpublishVolume", { ...ready, targetPath });
      const file = join(
        plugin.socket,
        "../var/lib/csi/csi.libstorage.org",
        `${ready.volumeId}.json`,
      );
      const record = JSON.parse(readFileSync(file, "utf8"));
      writeFileSync(file, JSON.stringify({ ...record, boot: "an earlier one" }));
      await assert.rejects(plugin.call("NodePublishVolume", { ...ready, targetPath }), {
        code: "FAILED_PRECONDITION",
      });
      await plugin.call("NodeStageVolume", ready);
      await plugin.call("NodeUnstageVolume", ready);
      rmSync(ready.stagingTargetPath, { recursive: true });
      await removed(plugin, ready.volumeId);
    });
  });
});
