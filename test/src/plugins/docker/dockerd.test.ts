/** Real Docker daemons with the plugin: one host, one service on a Unix socket. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { openClient } from "@libstorage/client";
import type { Client } from "@libstorage/client";
import { cannotContain, ContainerHost, until } from "./container-host.js";
import type { Running } from "./container-host.js";

const SKIP = cannotContain("dockerd", "docker", "runc", "nsenter", "ip");
const ALONE = ["--network", "none"];

describe("Docker with the plugin", { skip: SKIP }, () => {
  let host: ContainerHost;
  let client: Client;
  let server: Running;
  let plugin: Running;
  let daemon: Running;

  /** Whom the server has given a volume to. */
  async function holders(name: string): Promise<number> {
    const volumes = await client.volumesByService(
      { service: "vfs", attachments: 1 },
      undefined,
      {},
    );
    const volume = Object.values(volumes).find((one) => one.name === name);
    assert.ok(volume, `there is no volume ${name}`);
    return volume.attachments?.length ?? 0;
  }

  async function nothingIsMounted(): Promise<void> {
    await until("nothing is mounted", () => host.mounts().length === 0, 20_000).catch(() =>
      assert.deepEqual(host.mounts(), []),
    );
  }

  async function stop(running: Running, signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    running.kill(signal);
    await running.ended;
  }

  beforeEach(async () => {
    host = await ContainerHost.start();
    server = await host.localServer();
    client = openClient({ host: host.localServerAddress });
    plugin = await host.localPlugin();
  });
  afterEach(async () => {
    client.close();
    await host.close();
  });

  async function withDaemon(...args: string[]): Promise<void> {
    daemon = await host.dockerd(args);
    await host.mustDocker("import", host.imageFile(), "box");
  }

  const run = (...args: string[]): Promise<string> =>
    host.mustDocker("run", "--rm", ...ALONE, ...args);
  const shell = (volume: string, script: string): Promise<string> =>
    run("-v", `${volume}:/data`, "box", "sh", "-c", script);

  it("keeps what one container wrote for the next, over restarts of everything", async () => {
    await withDaemon();
    await host.mustDocker("volume", "create", "-d", "libstorage", "-o", "size=1", "web1");
    await shell("web1", "echo one > /data/f");
    assert.equal(await shell("web1", "cat /data/f"), "one");
    await nothingIsMounted();
    assert.equal(await holders("web1"), 0);

    await stop(daemon);
    daemon = await host.dockerd();
    assert.equal(await shell("web1", "cat /data/f; echo two >> /data/f"), "one");

    // In the middle of everything: a container runs, and the plugin dies without a word.
    const id = await host.mustDocker(
      "run",
      "-d",
      ...ALONE,
      "-v",
      "web1:/data",
      "box",
      "sleep",
      "300",
    );
    assert.equal(host.mounts().length, 1);
    await stop(plugin, "SIGKILL");
    assert.equal(host.mounts().length, 1);
    plugin = await host.localPlugin();
    assert.equal(await host.mustDocker("exec", id, "cat", "/data/f"), "one\ntwo");
    assert.equal(await shell("web1", "cat /data/f"), "one\ntwo");
    assert.equal(host.mounts().length, 1, "the first container still has it");
    assert.equal(await holders("web1"), 1);
    await host.mustDocker("rm", "-f", id);
    await nothingIsMounted();
    assert.equal(await holders("web1"), 0);

    await host.mustDocker("volume", "rm", "web1");
    assert.doesNotMatch(await host.mustDocker("volume", "ls"), /web1/);
    assert.deepEqual(await client.volumesByService({ service: "vfs" }, undefined, {}), {});
  });

  it("waits for a plugin that is dead for a moment, and goes on where it was", async () => {
    await withDaemon();
    await host.mustDocker("volume", "create", "-d", "libstorage", "vol");
    const id = await host.mustDocker(
      "run",
      "-d",
      ...ALONE,
      "-v",
      "vol:/data",
      "box",
      "sleep",
      "300",
    );
    await stop(plugin, "SIGKILL");
    const removing = host.docker("rm", "-f", id);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    plugin = await host.localPlugin();
    const { code, stderr } = await removing;
    assert.equal(code, 0, stderr);
    await nothingIsMounted();
    assert.equal(await holders("vol"), 0);
  });

  it("counts containers, and takes nothing away from one that runs", async () => {
    await withDaemon();
    await host.mustDocker("volume", "create", "-d", "libstorage", "vol");
    const start = (): Promise<string> =>
      host.mustDocker("run", "-d", ...ALONE, "-v", "vol:/data", "box", "sleep", "300");
    const [first, second] = [await start(), await start()];
    const inspect = JSON.parse(await host.mustDocker("volume", "inspect", "vol")) as {
      Mountpoint: string;
      Status: { users: string[] };
    }[];
    assert.equal(inspect[0]?.Status.users.length, 2);
    assert.match(inspect[0]?.Mountpoint ?? "", /\/volumes\/vol\/data$/);
    await host.mustDocker("rm", "-f", first);
    assert.equal(host.mounts().length, 1);

    // Copying mounts under the id of the container that runs, and unmounts it again.
    await host.mustDocker("exec", second, "sh", "-c", "echo x > /data/f");
    await host.mustDocker("cp", `${second}:/data/f`, join(host.folder, "copied"));
    assert.ok(existsSync(join(host.folder, "copied")));
    assert.equal(host.mounts().length, 1, "the container still runs");
    assert.equal(await holders("vol"), 1);
    assert.equal(await host.mustDocker("exec", second, "cat", "/data/f"), "x");
    const refused = await host.docker("volume", "rm", "vol");
    assert.equal(refused.code, 1);
    await host.mustDocker("rm", "-f", second);
    await nothingIsMounted();
    assert.equal(await holders("vol"), 0);
  });

  it("is right after a restart of the daemon with live-restore", async () => {
    await withDaemon("--live-restore");
    await host.mustDocker("volume", "create", "-d", "libstorage", "vol");
    const id = await host.mustDocker(
      "run",
      "-d",
      ...ALONE,
      "-v",
      "vol:/data",
      "box",
      "sleep",
      "300",
    );
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      await stop(daemon, signal);
      assert.equal(host.mounts().length, 1, signal);
      daemon = await host.dockerd(["--live-restore"]);
      assert.equal(await host.mustDocker("inspect", "-f", "{{.State.Running}}", id), "true");
      assert.equal(await shell("vol", "echo y > /data/f; cat /data/f"), "y");
      assert.equal(host.mounts().length, 1, "the first container still has it");
      assert.equal(await host.mustDocker("exec", id, "cat", "/data/f"), "y");
      assert.equal(await holders("vol"), 1);
    }
    // The plugin, too.
    await stop(plugin, "SIGKILL");
    plugin = await host.localPlugin();
    await host.mustDocker("rm", "-f", id);
    await nothingIsMounted();
    assert.equal(await holders("vol"), 0);
  });

  it("gives back what a killed daemon's containers had, when they are used again", async () => {
    await withDaemon();
    await host.mustDocker("volume", "create", "-d", "libstorage", "vol");
    const id = await host.mustDocker(
      "run",
      "-d",
      ...ALONE,
      "-v",
      "vol:/data",
      "box",
      "sleep",
      "300",
    );
    await stop(daemon, "SIGKILL");
    daemon = await host.dockerd();
    await host.mustDocker("start", id);
    assert.equal(host.mounts().length, 1);
    await host.mustDocker("stop", "-t", "0", id);
    await nothingIsMounted();
    await host.mustDocker("rm", id);
    assert.equal(await holders("vol"), 0);
  });

  it("does not hold the daemon up while no server is there, neither at boot nor later", async () => {
    await stop(server);
    const started = performance.now();
    await withDaemon();
    assert.ok(performance.now() - started < 15_000, "the daemon was held up");
    assert.equal((await host.docker("volume", "ls")).code, 0);
    const refused = await host.docker("volume", "create", "-d", "libstorage", "vol");
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /server\.sock/);
    server = await host.localServer();
    await host.mustDocker("volume", "create", "-d", "libstorage", "vol");
    assert.equal(await shell("vol", "echo z > /data/f; cat /data/f"), "z");

    // A server that comes while a container is being started is waited for.
    await stop(server);
    const starting = shell("vol", "cat /data/f");
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    server = await host.localServer();
    assert.equal(await starting, "z");
  });

  it("gives a container of a stopped server its end, and the volume back later", async () => {
    await withDaemon();
    await host.mustDocker("volume", "create", "-d", "libstorage", "vol");
    const id = await host.mustDocker(
      "run",
      "-d",
      ...ALONE,
      "-v",
      "vol:/data",
      "box",
      "sleep",
      "300",
    );
    await stop(server);
    await host.docker("rm", "-f", id);
    await nothingIsMounted();
    server = await host.localServer();
    // Another start of the plugin does at once what this one does within its interval.
    await stop(plugin);
    plugin = await host.localPlugin();
    await until("the volume is given back", async () => (await holders("vol")) === 0, 20_000);
  });

  it("makes copies, snapshots and larger volumes, and adopts what is there", async () => {
    await withDaemon();
    const create = (name: string, ...options: string[]): Promise<string> =>
      host.mustDocker(
        "volume",
        "create",
        "-d",
        "libstorage",
        ...options.flatMap((one) => ["-o", one]),
        name,
      );
    await create("aa", "size=1");
    await shell("aa", "echo first > /data/f");
    await create("a-monday", "snapshot=aa");
    await shell("aa", "echo second > /data/f");
    await create("bb", "from=aa");
    await create("cc", "fromSnapshot=a-monday");
    assert.equal(await shell("bb", "cat /data/f"), "second");
    assert.equal(await shell("cc", "cat /data/f"), "first");
    await create("a-large", "resize=aa", "size=2G");
    const { size } = (
      JSON.parse(await host.mustDocker("volume", "inspect", "aa")) as { Status: { size: number } }[]
    )[0]?.Status ?? { size: 0 };
    assert.equal(size, 2);
    const made = await client.volumeCreate(
      { service: "vfs" },
      { name: "a name with blanks", size: 1 },
      {},
    );
    await create("adopted", `adopt=${made.id}`);
    await shell("adopted", "echo mine > /data/f");
    await nothingIsMounted();
    const refused = await host.docker(
      "run",
      "--rm",
      ...ALONE,
      "-v",
      "a-monday:/data",
      "box",
      "true",
    );
    assert.match(refused.stderr, /is a snapshot of volume/);
    await host.mustDocker("volume", "rm", "adopted", "a-large", "a-monday", "aa", "bb", "cc");
    const left = await client.volumesByService({ service: "vfs" }, undefined, {});
    assert.deepEqual(Object.keys(left), [made.id], "only what was adopted is left");
    assert.deepEqual(await client.snapshotsByService({ service: "vfs" }, undefined, {}), {});
  });
});
