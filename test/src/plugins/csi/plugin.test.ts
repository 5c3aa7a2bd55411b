/** The plugin itself: its socket, its command and its modes. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { BIN, ended, start } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { openCsiClient, openTestPlugin } from "./csi-client.js";
import { made, testServer, withPlugin } from "./own-plugin.js";
import { cap, unique } from "./world.js";

describe("the socket of the CSI plugin", () => {
  it("has mode 0600, and goes with the plugin", async () => {
    let path = "";
    await withPlugin({}, async ({ socket }) => {
      path = socket;
      assert.equal(statSync(socket).mode & 0o777, 0o600);
      assert.ok(statSync(socket).isSocket());
      const besides = readdirSync(join(socket, "..")).filter((name) => /csi\.sock./.test(name));
      assert.deepEqual(besides, [], "nothing beside the socket");
    });
    assert.ok(!existsSync(path));
  });

  it(
    "lets no other user in",
    { skip: process.geteuid?.() !== 0 && "only root can be another user" },
    async () => {
      await withPlugin({}, async ({ socket }) => {
        const probe = `require("node:net").connect(${JSON.stringify(socket)}).once("error", (e) => { console.log(e.code); process.exit(0); }).once("connect", () => { console.log("connected"); process.exit(0); })`;
        const child = spawn(process.execPath, ["-e", probe], {
          uid: 65534,
          gid: 65534,
          stdio: ["ignore", "pipe", "ignore"],
        });
        const { stdout } = await ended(child);
        assert.match(stdout, /EACCES/);
      });
    },
  );

  it("is not taken from a plugin that runs", async () => {
    await withPlugin({}, async ({ socket, call }) => {
      const folder = join(socket, "..");
      const second = openTestPlugin({ host: testServer().host, folder, service: "vfs" });
      await assert.rejects(second, /another process answers there/);
      await call("Probe");
    });
  });

  it("is taken from one that was killed, but nothing else is removed", async () => {
    const folder = join(testServer().folder, "stale");
    mkdirSync(folder);
    const socket = join(folder, "csi.sock");
    const script = `require("node:net").createServer().listen(${JSON.stringify(socket)}, () => process.kill(process.pid, "SIGKILL"))`;
    await ended(spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "pipe"] }));
    assert.ok(statSync(socket).isSocket());
    await withPlugin({ folder }, async ({ call }) => {
      await call("Probe");
    });
    writeFileSync(socket, "precious");
    await assert.rejects(
      openTestPlugin({ host: testServer().host, folder, service: "vfs" }),
      /no socket/,
    );
    assert.equal(readFileSync(socket, "utf8"), "precious");
  });

  it("survives what is no gRPC", async () => {
    await withPlugin({}, async ({ socket, call }) => {
      for (const bytes of [
        "GET / HTTP/1.1\r\n\r\n",
        "\0".repeat(4096),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxxxxxxxxxx",
      ]) {
        const stranger = connect(socket);
        stranger.on("error", () => {});
        stranger.write(bytes);
        stranger.resume();
        await new Promise((resolve) => setTimeout(resolve, 50));
        stranger.destroy();
      }
      await call("GetPluginInfo");
    });
  });

  it("refuses a message of 100 MB and goes on", async () => {
    await withPlugin({}, async ({ call }) => {
      const parameters = { "option.large": "x".repeat(100 * 1024 ** 2) };
      const request = { name: unique("pvc"), volumeCapabilities: [cap()], parameters };
      await assert.rejects(call("CreateVolume", request), { code: "RESOURCE_EXHAUSTED" });
      await call("GetPluginInfo");
      assert.ok(process.memoryUsage().rss < 2 * 1024 ** 3);
    });
  });

  it("is a Unix socket and nothing else", async () => {
    const child = start(BIN, [
      "plugin",
      "csi",
      "--endpoint",
      "tcp://127.0.0.1:9999",
      "--host",
      testServer().host,
      "-s",
      "vfs",
    ]);
    const { code, stderr } = await ended(child);
    assert.equal(code, 1);
    assert.match(stderr, /no Unix socket/);
  });
});

describe("the command libstorage plugin csi", () => {
  for (const way of ["--endpoint", "CSI_ENDPOINT"] as const)
    it(`serves where ${way} says, until SIGTERM`, async () => {
      const folder = join(testServer().folder, unique("command"));
      mkdirSync(folder);
      const endpoint = `unix://${folder}/csi.sock`;
      const words = ["plugin", "csi", "--host", testServer().host, "-s", "vfs", "--json"];
      const env = { LIBSTORAGE_HOME: folder, LIBSTORAGE_CONFIG: "" };
      const child =
        way === "--endpoint"
          ? start(BIN, [...words, "--endpoint", endpoint], env)
          : start(BIN, words, { ...env, CSI_ENDPOINT: endpoint });
      const over = ended(child);
      await new Promise((resolve) => child.stdout?.once("data", resolve));
      const client = openCsiClient(`${folder}/csi.sock`);
      const { volume } = await client.call("CreateVolume", {
        name: unique("pvc"),
        volumeCapabilities: [cap()],
        secrets: { password: "hunter2" },
      });
      await client.call("DeleteVolume", { volumeId: volume.volumeId });
      client.close();
      child.kill("SIGTERM");
      const { code, stdout, stderr } = await over;
      assert.equal(code, 0, stderr);
      const ready = JSON.parse(stdout) as Record<string, unknown>;
      assert.equal(ready["ready"], "csi.libstorage.org");
      assert.equal(ready["mode"], "all");
      assert.ok(!stderr.includes("hunter2"));
      for (const line of stderr.trim().split("\n")) JSON.parse(line);
      assert.ok(!existsSync(`${folder}/csi.sock`));
    });

  it("knows its modes", async () => {
    const { code, stderr } = await ended(start(BIN, ["plugin", "csi", "--mode", "both"]));
    assert.notEqual(code, 0);
    assert.match(stderr, /all, controller, node/);
  });
});

describe("the modes of the CSI plugin", () => {
  it("as a controller it has no Node service", async () => {
    await withPlugin({ settings: { "csi.mode": "controller" } }, async (plugin) => {
      const { volumeId } = await made(plugin);
      await plugin.call("DeleteVolume", { volumeId });
      for (const name of ["NodeGetInfo", "NodeGetCapabilities", "NodeStageVolume"])
        await assert.rejects(plugin.call(name), { code: "UNIMPLEMENTED" });
      await plugin.call("Probe");
    });
  });

  it("as a node it has no Controller service", async () => {
    await withPlugin({ settings: { "csi.mode": "node" } }, async (plugin) => {
      assert.equal((await plugin.call("NodeGetInfo")).nodeId.split(":")[0], "vfs");
      for (const name of [
        "CreateVolume",
        "ControllerGetCapabilities",
        "GroupControllerGetCapabilities",
      ])
        await assert.rejects(plugin.call(name), { code: "UNIMPLEMENTED" });
      await assert.rejects(plugin.stream("GetMetadataAllocated"), { code: "UNIMPLEMENTED" });
    });
  });

  it(
    "a controller and a node of different hosts work on one volume",
    { skip: cannotMount() },
    async () => {
      await withPlugin({ settings: { "csi.mode": "controller" } }, async (controller) => {
        await withPlugin(
          { settings: { "csi.mode": "node", "vfs.instanceID.name": "worker-1" } },
          async (node) => {
            const { nodeId } = await node.call("NodeGetInfo");
            assert.equal(nodeId, "vfs:worker-1");
            const { volumeId } = await made(controller);
            const volumeCapability = cap();
            await controller.call("ControllerPublishVolume", {
              volumeId,
              nodeId,
              volumeCapability,
            });
            const stagingTargetPath = join(testServer().folder, "two-hosts");
            mkdirSync(stagingTargetPath);
            await node.call("NodeStageVolume", { volumeId, stagingTargetPath, volumeCapability });
            writeFileSync(join(stagingTargetPath, "file"), "x");
            await node.call("NodeUnstageVolume", { volumeId, stagingTargetPath });
            await controller.call("ControllerUnpublishVolume", { volumeId, nodeId });
            await controller.call("DeleteVolume", { volumeId });
          },
        );
      });
    },
  );
});

describe("the CSI plugin in a crowd", () => {
  it("a socket that nobody reads from does not hold others up", async () => {
    await withPlugin({}, async ({ socket, call }) => {
      const idle = Array.from({ length: 20 }, () => connect(socket));
      await Promise.all(idle.map((one) => new Promise((resolve) => one.once("connect", resolve))));
      await call("ListVolumes");
      for (const one of idle) one.destroy();
    });
  });
});
