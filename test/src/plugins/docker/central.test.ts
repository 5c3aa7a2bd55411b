/** Two hosts with containers, one service for both over mutual TLS, cables between them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openClient } from "@libstorage/client";
import type { Client } from "@libstorage/client";
import { run as runProgram, SERVER_BIN } from "../../client/fixture.js";
import { cannotContain, ContainerHost, until } from "./container-host.js";
import type { Running } from "./container-host.js";

const SKIP = cannotContain("dockerd", "docker", "runc", "nsenter", "ip");

describe("Docker on two hosts with a central service", { skip: SKIP }, () => {
  let storage: ContainerHost;
  let client: Client;
  const hosts: ContainerHost[] = [];
  const plugins: Running[] = [];
  const daemons: Running[] = [];

  async function addHost(number: number): Promise<void> {
    const address = `10.88.${number}.1`;
    const host = await ContainerHost.start();
    hosts.push(host);
    ContainerHost.link([storage, address], [host, `10.88.${number}.2`]);
    const tls = join(storage.folder, "tls");
    const name = `host-${number}`;
    const made = await runProgram(SERVER_BIN, ["tls", "client", "--folder", tls, "--name", name]);
    assert.equal(made.code, 0, made.stderr);
    host.configure(`
libstorage:
  host: tcp://${address}:7979
  service: vfs
  tls:
    certFile: ${tls}/${name}.crt
    keyFile: ${tls}/${name}.key
    trustedCertsFile: ${tls}/cacerts
vfs: { instanceID: { name: ${name} } }
`);
    plugins.push(await host.plugin());
    daemons.push(await host.dockerd());
    await host.mustDocker("import", host.imageFile(), "box");
  }

  before(async () => {
    storage = await ContainerHost.start();
    const tls = join(storage.folder, "tls");
    const names = ["10.88.1.1", "10.88.2.1"].flatMap((address) => ["--host", address]);
    const made = await runProgram(SERVER_BIN, ["tls", "init", "--folder", tls, ...names]);
    assert.equal(made.code, 0, made.stderr);
    await storage.server(`
libstorage:
  server:
    endpoints:
      hosts: { address: "tcp://0.0.0.0:7979" }
      local: { address: "unix://${storage.folder}/server.sock" }
    services: { vfs: { driver: vfs, vfs: { root: "${storage.folder}/vfs" } } }
  tls:
    certFile: ${tls}/server.crt
    keyFile: ${tls}/server.key
    trustedCertsFile: ${tls}/cacerts
    clientCertRequired: true
`);
    client = openClient({ host: storage.localServerAddress });
    await addHost(1);
    await addHost(2);
  });
  after(async () => {
    client?.close();
    await Promise.all([...hosts, storage].map((host) => host?.close()));
  });

  const hostAt = (number: number): ContainerHost => {
    const host = hosts[number - 1];
    assert.ok(host);
    return host;
  };
  const shell = (number: number, volume: string, script: string): Promise<string> =>
    hostAt(number).mustDocker(
      "run",
      "--rm",
      "--network",
      "none",
      "-v",
      `${volume}:/data`,
      "box",
      "sh",
      "-c",
      script,
    );
  const start = (number: number, volume: string): Promise<string> =>
    hostAt(number).mustDocker(
      "run",
      "-d",
      "--network",
      "none",
      "-v",
      `${volume}:/data`,
      "box",
      "sleep",
      "300",
    );

  async function holders(name: string): Promise<readonly string[]> {
    const volumes = await client.volumesByService(
      { service: "vfs", attachments: 1 },
      undefined,
      {},
    );
    const volume = Object.values(volumes).find((one) => one.name === name);
    return (volume?.attachments ?? []).map(({ instanceID }) => instanceID?.id ?? "");
  }

  it("reads on one host what was written on the other, over restarts", async () => {
    const [one, two] = [hostAt(1), hostAt(2)];
    await one.mustDocker("volume", "create", "-d", "libstorage", "-o", "size=1", "web1");
    await shell(1, "web1", "echo one > /data/f");
    assert.match(await two.mustDocker("volume", "ls"), /libstorage\s+web1/);
    assert.equal(await shell(2, "web1", "cat /data/f; echo two >> /data/f"), "one");

    daemons[0]?.kill("SIGTERM");
    await daemons[0]?.ended;
    daemons[0] = await one.dockerd();
    const id = await start(1, "web1");
    assert.deepEqual(await holders("web1"), ["host-1"]);
    plugins[0]?.kill("SIGKILL");
    await plugins[0]?.ended;
    plugins[0] = await one.plugin();
    assert.equal(await one.mustDocker("exec", id, "cat", "/data/f"), "one\ntwo");
    await one.mustDocker("rm", "-f", id);
    await until("host 1 has nothing mounted", () => one.mounts().length === 0);
    assert.deepEqual(await holders("web1"), []);
    assert.equal(await shell(2, "web1", "cat /data/f"), "one\ntwo");
    await two.mustDocker("volume", "rm", "web1");
    assert.doesNotMatch(await one.mustDocker("volume", "ls"), /web1/);
  });

  it("refuses a second host with the first one's name, unless the volume is shared", async () => {
    const [one, two] = [hostAt(1), hostAt(2)];
    await one.mustDocker("volume", "create", "-d", "libstorage", "mine");
    await one.mustDocker("volume", "create", "-d", "libstorage", "-o", "share=true", "ours");
    const id = await start(1, "mine");
    const refused = await two.docker(
      "run",
      "--rm",
      "--network",
      "none",
      "-v",
      "mine:/data",
      "box",
      "true",
    );
    assert.equal(refused.code, 125);
    assert.match(refused.stderr, /it is attached to host-1 since/);
    assert.deepEqual(two.mounts(), []);
    await one.mustDocker("rm", "-f", id);

    const both = [await start(1, "ours"), await start(2, "ours")];
    assert.deepEqual((await holders("ours")).toSorted(), ["host-1", "host-2"]);
    await one.mustDocker("rm", "-f", both[0] ?? "");
    assert.deepEqual(await holders("ours"), ["host-2"]);
    await two.mustDocker("rm", "-f", both[1] ?? "");
    assert.deepEqual(await holders("ours"), []);
    await two.mustDocker("volume", "rm", "mine", "ours");
  });

  it("takes a volume from another host where the configuration says so, and keeps it", async () => {
    const [one, two] = [hostAt(1), hostAt(2)];
    await one.mustDocker("volume", "create", "-d", "libstorage", "stuck");
    const id = await start(1, "stuck");
    plugins[1]?.kill("SIGTERM");
    assert.equal(await plugins[1]?.ended, 0);
    plugins[1] = await two.plugin([], {
      LIBSTORAGE_INTEGRATION_VOLUME_OPERATIONS_MOUNT_PREEMPT: "true",
    });
    const taken = await start(2, "stuck");
    assert.deepEqual(await holders("stuck"), ["host-2"]);
    const shown = JSON.parse(await one.mustDocker("volume", "inspect", "stuck")) as {
      Status: { health: string };
    }[];
    assert.match(shown[0]?.Status.health ?? "", /attached to host-2/);
    const second = await one.docker(
      "run",
      "--rm",
      "--network",
      "none",
      "-v",
      "stuck:/data",
      "box",
      "true",
    );
    assert.match(second.stderr, /still mounted at .* but is attached to host-2/);
    // The end of the first container takes nothing from the second host.
    await one.mustDocker("rm", "-f", id);
    await until("host 1 has nothing mounted", () => one.mounts().length === 0);
    assert.deepEqual(await holders("stuck"), ["host-2"]);
    await two.mustDocker("rm", "-f", taken);
    assert.deepEqual(await holders("stuck"), []);
    await two.mustDocker("volume", "rm", "stuck");
  });

  it("turns away a host without a certificate of the CA", async () => {
    const one = hostAt(1);
    const plugin = await one.plugin(["--listen", `unix://${one.plugins}/bare.sock`], {
      LIBSTORAGE_TLS_DISABLED: "true",
    });
    const { code, stderr } = await one.docker("volume", "create", "-d", "bare", "x1");
    assert.equal(code, 1);
    assert.match(stderr, /TLS|HTTPS/);
    plugin.kill("SIGTERM");
    assert.equal(await plugin.ended, 0);
  });
});
