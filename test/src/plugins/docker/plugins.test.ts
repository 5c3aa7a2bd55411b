/** Several plugins in one process, on sockets and on TCP, as a real daemon finds them. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { run as runProgram, SERVER_BIN } from "../../client/fixture.js";
import { cannotContain, ContainerHost } from "./container-host.js";
import type { Running } from "./container-host.js";

const SKIP = cannotContain("dockerd", "docker", "runc", "nsenter", "ip");
const PORT = 7981;

describe("several Docker plugins in one process", { skip: SKIP }, () => {
  let host: ContainerHost;
  let plugin: Running;

  before(async () => {
    host = await ContainerHost.start();
    const tls = join(host.folder, "tls");
    for (const args of [
      ["init", "--host", "127.0.0.1"],
      ["client", "--name", "daemon"],
    ]) {
      const made = await runProgram(SERVER_BIN, ["tls", ...args, "--folder", tls]);
      assert.equal(made.code, 0, made.stderr);
    }
    await host.server(`
libstorage:
  server:
    endpoints: { local: { address: "unix://${host.folder}/server.sock" } }
    services:
      fast: { driver: vfs, vfs: { root: "${host.folder}/fast" } }
      slow: { driver: vfs, vfs: { root: "${host.folder}/slow" } }
`);
    host.configure(`
libstorage:
  host: unix://${host.folder}/server.sock
rexray:
  modules:
    fast:
      type: docker
      libstorage:
        service: fast
        integration: { volume: { operations: { create: { default: { size: 3, type: gold } } } } }
    slow:
      type: docker
      host: tcp://127.0.0.1:${PORT}
      libstorage: { service: slow }
      docker:
        tls:
          certFile: ${tls}/server.crt
          keyFile: ${tls}/server.key
          trustedCertsFile: ${tls}/cacerts
        daemon: { certFile: ${tls}/daemon.crt, keyFile: ${tls}/daemon.key }
    open:
      type: docker
      host: tcp://127.0.0.1:${PORT + 1}
      libstorage: { service: slow }
      docker:
        tls: { certFile: ${tls}/server.crt, keyFile: ${tls}/server.key, clientCertRequired: false }
    off: { type: docker, disabled: true }
    other: { type: csi }
`);
    plugin = await host.plugin();
    await host.dockerd();
    await host.mustDocker("import", host.imageFile(), "box");
  });
  after(() => host?.close());

  const shell = (driver: string, volume: string, script: string): Promise<string> =>
    host.mustDocker(
      "run",
      "--rm",
      "--network",
      "none",
      "--volume-driver",
      driver,
      "-v",
      `${volume}:/data`,
      "box",
      "sh",
      "-c",
      script,
    );

  it("says what is ready, and leaves out what is disabled or of another type", () => {
    const lines = plugin
      .output()
      .split("\n")
      .filter((line) => line.startsWith("ready: "));
    assert.equal(lines.length, 3, plugin.output());
    assert.match(lines[0] ?? "", /^ready: fast on unix:\/\/\/run\/docker\/plugins\/fast\.sock/);
    assert.match(lines[1] ?? "", /^ready: slow on tcp:\/\/127\.0\.0\.1:7981/);
  });

  it("gives each its own service and defaults, also for volumes of one name", async () => {
    for (const driver of ["fast", "slow"])
      await host.mustDocker("volume", "create", "-d", driver, `on-${driver}`);
    const inspect = async (name: string): Promise<Record<string, unknown>> =>
      (
        JSON.parse(await host.mustDocker("volume", "inspect", name)) as {
          Status: Record<string, unknown>;
        }[]
      )[0]?.Status ?? {};
    const fast = await inspect("on-fast");
    assert.deepEqual([fast["service"], fast["size"], fast["type"]], ["fast", 3, "gold"]);
    const slow = await inspect("on-slow");
    assert.deepEqual([slow["service"], slow["size"], slow["type"]], ["slow", 16, ""]);
    await shell("fast", "on-fast", "echo fast > /data/f");
    await shell("slow", "on-slow", "echo slow > /data/f");
    assert.equal(await shell("slow", "on-slow", "cat /data/f"), "slow");
    assert.deepEqual(host.mounts(), []);
    await host.mustDocker("volume", "rm", "on-fast", "on-slow");
  });

  it("is found through a file with nothing but its address, where it asks for no certificate", async () => {
    const file = join(host.folder, "etc-docker/plugins/open.spec");
    assert.equal(await readFile(file, "utf8"), `https://127.0.0.1:${PORT + 1}\n`);
    await host.mustDocker("volume", "create", "-d", "open", "by-spec");
    assert.match(await host.mustDocker("volume", "ls"), /open\s+by-spec/);
    await host.mustDocker("volume", "rm", "by-spec");
  });

  it("lets nobody in over TCP who has no certificate", async () => {
    const script = `
const https = require("node:https");
https.get({ host: "127.0.0.1", port: ${PORT}, path: "/Plugin.Activate", rejectUnauthorized: false },
  () => console.log("in")).on("error", (error) => console.log("out", error.code));`;
    assert.match(await host.must([process.execPath, "-e", script]), /^out/);
  });

  it("tells daemons where it is while it is there", async () => {
    const file = join(host.folder, "etc-docker/plugins/slow.json");
    const spec = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
    assert.equal(spec["Addr"], `https://127.0.0.1:${PORT}`);
    plugin.kill("SIGTERM");
    assert.equal(await plugin.ended, 0);
    assert.ok(!existsSync(file), "the file is left");
    assert.ok(!existsSync(join(host.plugins, "fast.sock")), "the socket is left");
  });
});
