/** What the plugin does while somebody it needs is away, slow or busy. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { Server } from "node:http";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";
import { listen, makeFolder, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { mountsBelow, openPlugin, unmountBelow } from "./plugin-fixture.js";
import type { TestPlugin, TestPluginOptions } from "./plugin-fixture.js";

async function timed<T>(
  act: () => Promise<T>,
): Promise<{ readonly ms: number; readonly value: T }> {
  const started = performance.now();
  const value = await act();
  return { ms: performance.now() - started, value };
}

describe("the Docker plugin's time limits", { skip: cannotMount() }, () => {
  let server: TestServer;
  let folder: string;
  let plugin: TestPlugin | undefined;
  const others: Server[] = [];

  before(async () => {
    server = await startServer();
  });
  after(() => server.close());
  beforeEach(async () => {
    folder = await makeFolder();
  });
  afterEach(async () => {
    server.intercept = undefined;
    await plugin?.close();
    plugin = undefined;
    for (const other of others.splice(0)) {
      other.closeAllConnections();
      other.close();
    }
    await unmountBelow(folder);
    await rm(folder, { recursive: true, force: true });
    const { service } = server.app;
    for (const volumeID of Object.keys(
      await service.volumesByService({ service: "vfs" }, undefined, {}),
    ))
      await service.volumeRemove({ service: "vfs", volumeID, force: true }, undefined, {});
  });

  async function open(options: Partial<TestPluginOptions> = {}): Promise<TestPlugin> {
    plugin = await openPlugin({ host: server.host, folder, ...options });
    return plugin;
  }

  async function holders(name: string): Promise<number> {
    const volumes = await server.app.service.volumesByService(
      { service: "vfs", attachments: 1 },
      undefined,
      {},
    );
    return Object.values(volumes).find((one) => one.name === name)?.attachments?.length ?? 0;
  }

  /** Commands of one name wait until they are stopped. */
  const hanging =
    (name: string): Exec =>
    async (file, args, options) => {
      if (file !== name) return runCommand(file, args, options);
      return runCommand("sleep", ["60"], options);
    };

  it("answers without any server what needs none, from its first moment on", async () => {
    const { call, ok } = await open({ host: `unix://${folder}/none.sock` });
    assert.equal((await call("Plugin.Activate")).status, 200);
    const scope = await ok("Capabilities");
    assert.deepEqual(scope, { Capabilities: { Scope: "global" } });
    assert.deepEqual(await ok("Path", { Name: "v" }), { Mountpoint: "" });
  });

  it("says at once that no server is there, and where it should be", async () => {
    const { err } = await open({ host: `unix://${folder}/none.sock` });
    for (const [operation, body] of [
      ["List", {}],
      ["Get", { Name: "v" }],
      ["Create", { Name: "v" }],
      ["Remove", { Name: "v" }],
    ] as const) {
      const { ms, value } = await timed(() => err(operation, body));
      assert.match(value, /none\.sock/, operation);
      assert.ok(ms < 2_000, `${operation}: ${ms} ms`);
    }
  });

  it("waits for a server only when it mounts, and only so long", async () => {
    const { err } = await open({
      host: `unix://${folder}/none.sock`,
      settings: { "docker.serverWait": "1200ms" },
    });
    const { ms, value } = await timed(() => err("Mount", { Name: "v", ID: "c" }));
    assert.match(value, /none\.sock/);
    assert.ok(ms > 400 && ms < 4_000, `${ms} ms`);
  });

  it("names the request that a silent server was asked", async () => {
    const silent = createServer(() => {});
    others.push(silent);
    const host = await listen(silent, join(folder, "silent.sock"));
    const { err, call } = await open({
      host,
      settings: { "docker.readTimeout": "400ms", "docker.changeTimeout": "600ms" },
    });
    const list = await timed(() => err("List"));
    assert.match(
      list.value,
      /VolumeDriver\.List did not end within 0\.4 s: it waited for the server unix:.*silent\.sock to answer volumesByService/,
    );
    assert.ok(list.ms < 3_000, `${list.ms} ms`);
    const create = await err("Create", { Name: "v" });
    assert.match(
      create,
      /VolumeDriver\.Create of v did not end within 0\.6 s: it waited for the server/,
    );
    assert.equal((await call("Plugin.Activate")).status, 200);
  });

  it("names the command that does not end, and takes back what was begun", async () => {
    const { ok, err } = await open({
      exec: hanging("mount"),
      settings: { "docker.changeTimeout": "1500ms" },
    });
    await ok("Create", { Name: "v" });
    assert.match(
      await err("Mount", { Name: "v", ID: "c" }),
      /Mount of v did not end within 1\.5 s: it waited for "mount -o … -- .*\/v"/,
    );
    assert.deepEqual(await mountsBelow(folder), []);
    assert.equal(await holders("v"), 0);
  });

  it("names another call for the same volume, and leaves other volumes alone", async () => {
    const { ok, err, call } = await open({
      exec: hanging("umount"),
      settings: { "docker.changeTimeout": "2500ms" },
    });
    for (const name of ["v", "w"]) await ok("Create", { Name: name });
    await ok("Mount", { Name: "v", ID: "c" });
    const stuck = call("Unmount", { Name: "v", ID: "c" });
    await new Promise((resolve) => setTimeout(resolve, 500));
    const second = err("Mount", { Name: "v", ID: "d" });
    const other = await timed(() => ok("Mount", { Name: "w", ID: "c" }));
    assert.ok(other.ms < 2_000, `${other.ms} ms`);
    assert.equal((await stuck).status, 500);
    assert.match(
      await second.catch(String),
      /it waited for another call for the same volume|Mountpoint/,
    );
  });

  it("shows a volume that it knows while the server is away", async () => {
    const { ok } = await open();
    await ok("Create", { Name: "v", Opts: { size: "3" } });
    await ok("Get", { Name: "v" });
    await plugin?.close();
    const later = await open({ host: `unix://${folder}/none.sock` });
    // Another process, as after a restart.
    const { Volume } = (await later.ok("Get", { Name: "v" })) as {
      Volume: { Status: Record<string, unknown> };
    };
    assert.equal(Volume.Status["size"], 3);
    assert.match(String(Volume.Status["health"]), /^not known: .*none\.sock/);
    assert.match(await later.err("Get", { Name: "w" }), /none\.sock/);
  });

  it("unmounts without the server, and tells it when it is back", async () => {
    const { ok } = await open();
    await ok("Create", { Name: "v" });
    await ok("Mount", { Name: "v", ID: "c" });
    server.intercept = (_req, res) => {
      res.destroy();
      return true;
    };
    const settings = { "docker.changeTimeout": "1s" };
    await plugin?.close();
    const without = await open({ settings });
    assert.match(await without.err("Unmount", { Name: "v", ID: "c" }), /server\.sock/);
    assert.deepEqual(await mountsBelow(folder), []);
    server.intercept = undefined;
    assert.equal(await holders("v"), 1);
    await without.ok("Unmount", { Name: "v", ID: "c" });
    assert.equal(await holders("v"), 0);
  });

  it("goes on when the server's connections break in the middle", async () => {
    const { ok } = await open();
    await ok("Create", { Name: "v" });
    for (const [operation, body] of [
      ["Mount", { Name: "v", ID: "c" }],
      ["Unmount", { Name: "v", ID: "c" }],
      ["Remove", { Name: "v" }],
    ] as const) {
      let isCut = false;
      server.intercept = (req) => {
        // After the request has arrived, before it is answered.
        if (req.method === "GET" || isCut) return false;
        isCut = true;
        setImmediate(() => server.cut());
        return false;
      };
      await ok(operation, body);
      assert.ok(isCut, operation);
    }
    assert.deepEqual(await mountsBelow(folder), []);
  });

  it("takes a mount back whose caller has gone", async () => {
    const slow: Exec = async (file, args, options) => {
      if (file === "mount") await runCommand("sleep", ["0.5"], options);
      return runCommand(file, args, options);
    };
    const { ok, call, log } = await open({ exec: slow });
    await ok("Create", { Name: "v" });
    const gone = new AbortController();
    const asked = call("Mount", { Name: "v", ID: "c" }, { signal: gone.signal });
    setTimeout(() => gone.abort(), 250);
    await assert.rejects(asked);
    const deadline = performance.now() + 10_000;
    while (!log.some(({ op, level }) => op === "VolumeDriver.Mount" && level === "warn")) {
      assert.ok(performance.now() < deadline, JSON.stringify(log));
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    assert.deepEqual(await mountsBelow(folder), []);
    assert.equal(await holders("v"), 0);
  });
});
