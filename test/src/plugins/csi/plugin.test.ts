/** The plugin itself: its socket, its modes, its settings, and what it does while the server is away. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { VolumeService } from "@libstorage/model";
import { formatNodeID, parseNodeID } from "@libstorage/client/csi";
import type { SnapshotBlocks } from "@libstorage/client/csi";
import { BIN, ended, start, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { openCsiClient, openTestPlugin } from "./csi-client.js";
import type { Message, TestPlugin, TestPluginOptions } from "./csi-client.js";
import { cap, GIB, unique } from "./world.js";

let server: TestServer;
let plugins = 0;

before(async () => {
  server = await startServer();
});
after(() => server.close());

type More = Partial<TestPluginOptions>;

async function withPlugin(more: More, act: (plugin: TestPlugin) => Promise<void>): Promise<void> {
  plugins += 1;
  const folder = join(server.folder, `host-${plugins}`);
  const plugin = await openTestPlugin({ host: server.host, folder, service: "vfs", ...more });
  try {
    await act(plugin);
  } finally {
    await plugin.stop(0);
  }
}

async function made(plugin: TestPlugin, more: object = {}): Promise<Message> {
  const request = { name: unique("pvc"), volumeCapabilities: [cap()], ...more };
  return (await plugin.call("CreateVolume", request)).volume;
}

/** Attached to this node, and with a staging folder. */
async function readyOn(
  plugin: TestPlugin,
  name = unique("staging"),
): Promise<{ volumeId: string; stagingTargetPath: string; volumeCapability: Message }> {
  const { volumeId } = await made(plugin);
  const { nodeId } = await plugin.call("NodeGetInfo");
  const volumeCapability = cap();
  await plugin.call("ControllerPublishVolume", { volumeId, nodeId, volumeCapability });
  const stagingTargetPath = join(server.folder, name);
  mkdirSync(stagingTargetPath);
  return { volumeId, stagingTargetPath, volumeCapability };
}

async function removed(plugin: TestPlugin, volumeId: string): Promise<void> {
  await plugin.call("ControllerUnpublishVolume", { volumeId });
  await plugin.call("DeleteVolume", { volumeId });
}

const names = async (plugin: TestPlugin, call: string): Promise<string[]> =>
  (await plugin.call(call)).capabilities.map(
    (one: Message) => one.rpc?.type ?? one.service?.type ?? one.volumeExpansion?.type,
  );

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
      const second = openTestPlugin({ host: server.host, folder, service: "vfs" });
      await assert.rejects(second, /another process answers there/);
      await call("Probe");
    });
  });

  it("is taken from one that was killed, but nothing else is removed", async () => {
    const folder = join(server.folder, "stale");
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
      openTestPlugin({ host: server.host, folder, service: "vfs" }),
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
      server.host,
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
      const folder = join(server.folder, unique("command"));
      mkdirSync(folder);
      const endpoint = `unix://${folder}/csi.sock`;
      const words = ["plugin", "csi", "--host", server.host, "-s", "vfs", "--json"];
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
            const stagingTargetPath = join(server.folder, "two-hosts");
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
      ];
      for (const [name, request] of calls)
        await assert.rejects(plugin.call(name, request), { code: "UNIMPLEMENTED" }, name);
      const volumeContentSource = { volume: { volumeId } };
      await assert.rejects(made(plugin, { volumeContentSource }), { code: "INVALID_ARGUMENT" });
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
    await withPlugin({ blocks }, async (plugin) => {
      assert.ok(
        (await names(plugin, "GetPluginCapabilities")).includes("SNAPSHOT_METADATA_SERVICE"),
      );
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
      await fails(
        "GetMetadataAllocated",
        { snapshotId: "s", startingOffset: -1 },
        "INVALID_ARGUMENT",
      );
      await fails(
        "GetMetadataAllocated",
        { snapshotId: "s", startingOffset: 2 * GIB },
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
    ];
    for (const settings of wrong)
      await assert.rejects(
        withPlugin({ settings }, async () => {}),
        { code: "invalid-argument" },
        JSON.stringify(settings),
      );
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

describe("the CSI plugin while its server is away", () => {
  it("says so, is not ready, and comes back by itself", async () => {
    await withPlugin({}, async (plugin) => {
      server.intercept = (_req, res) => {
        res.destroy();
        return true;
      };
      try {
        await assert.rejects(made(plugin), { code: "UNAVAILABLE" });
        await assert.rejects(plugin.call("ListVolumes"), { code: "UNAVAILABLE" });
        assert.deepEqual(await plugin.call("Probe"), { ready: { value: false } });
        await plugin.call("GetPluginInfo");
      } finally {
        server.intercept = undefined;
      }
      assert.deepEqual(await plugin.call("Probe"), { ready: { value: true } });
      await removed(plugin, (await made(plugin)).volumeId);
    });
  });

  it("a volume whose answer was lost is made once", async () => {
    await withPlugin({}, async (plugin) => {
      const name = unique("lost");
      const request = { name, volumeCapabilities: [cap()] };
      const before = (await plugin.call("ListVolumes")).entries.length;
      let cuts = 0;
      server.intercept = (req, res) => {
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
        server.intercept = undefined;
      }
    });
  });

  it("still unpublishes and unstages", { skip: cannotMount() }, async () => {
    await withPlugin({}, async (plugin) => {
      const ready = await readyOn(plugin);
      const { volumeId, stagingTargetPath } = ready;
      const targetPath = join(server.folder, unique("target"));
      await plugin.call("NodeStageVolume", ready);
      await plugin.call("NodePublishVolume", { ...ready, targetPath });
      server.intercept = (_req, res) => {
        res.destroy();
        return true;
      };
      try {
        await plugin.call("NodeUnpublishVolume", { volumeId, targetPath });
        await plugin.call("NodeUnstageVolume", { volumeId, stagingTargetPath });
      } finally {
        server.intercept = undefined;
      }
      assert.ok(!existsSync(targetPath));
      await removed(plugin, volumeId);
    });
  });
});

describe("the CSI plugin's records", { skip: cannotMount() }, () => {
  it("outlive the plugin: the next one knows what is staged and published", async () => {
    const folder = join(server.folder, "restarted");
    let ready: Awaited<ReturnType<typeof readyOn>> | undefined;
    const targetPath = join(server.folder, unique("target"));
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
      for (const broken of ["", "{", "[]", text.replace(ready.volumeId, "vfs-999")]) {
        writeFileSync(file, broken);
        await assert.rejects(
          plugin.call("NodeUnstageVolume", ready),
          (error: Error & { code: string }) =>
            error.code === "DATA_LOSS" && error.message.includes(file),
        );
      }
      writeFileSync(file, text);
      await plugin.call("NodeUnstageVolume", ready);
      await removed(plugin, ready.volumeId);
    });
  });

  it("of an earlier start of the host mean nothing is mounted any more", async () => {
    await withPlugin({}, async (plugin) => {
      const ready = await readyOn(plugin);
      const targetPath = join(server.folder, unique("target"));
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
