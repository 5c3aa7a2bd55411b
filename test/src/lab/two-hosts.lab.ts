/** A central service with mutual TLS on host `a`, its client on host `b`, and a link between them that breaks. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { InstanceID, VolumeMap } from "@libstorage/model";
import { LabServer } from "./lab-server.js";
import { until } from "./limit.js";
import { CLIENT, clientConfig, CONFIG, giveCertificates } from "./mutual-tls.js";
import { startTwoHosts } from "./network.js";
import type { Hosts } from "./network.js";
import type { Machine } from "./machine.js";
import { RemoteClient } from "./remote-client.js";

const VOLUMES = "/srv/volumes";
const ON_B: InstanceID = { id: "b", driver: "vfs", service: "vfs" };

let hosts: Hosts;
let server: LabServer;

/** The sample for many hosts, but for names: with them unique a second volume would be refused anyway. */
async function configure(both: Hosts): Promise<void> {
  const { a, b } = both;
  const sample = await a.run("cat /project/config/centralized.yml");
  const config = sample.replace("uniqueNames: true", "uniqueNames: false");
  assert.notEqual(config, sample);
  await a.write(CONFIG, config);
  await giveCertificates(both);
  await b.write(CONFIG, clientConfig("vfs"));
}

function clientOnB(times: { responseTimeoutMs?: number; repeatMs?: number }): RemoteClient {
  return new RemoteClient(hosts.b, { ...CLIENT, ...times });
}

/** As the storage host itself sees them, over its own socket. */
async function namesOnA(): Promise<string[]> {
  const text = await hosts.a.run("libstorage volume ls --json");
  const { vfs = {} } = JSON.parse(text) as { vfs?: VolumeMap };
  return Object.values(vfs).map(({ name }) => name);
}

const count = (names: readonly string[], name: string): number =>
  names.filter((one) => one === name).length;

/** Bytes that a process of the machine has been sent on port 7979 and has not read. */
async function unread(machine: Machine): Promise<number> {
  const lines = (await machine.run("ss -Htn state established sport = :7979")).split("\n");
  return lines.reduce((sum, line) => sum + Number(line.trim().split(/\s+/)[0] ?? 0), 0);
}

async function refusesStrangers(): Promise<void> {
  const { b } = hosts;
  const { code } = await b.attempt("curl -sk --max-time 30 https://a:7979/volumes");
  assert.ok(code === 52 || code === 56, `curl's code for a closed connection is not ${code}`);
  await until("the log has the reason", async () => /showed no certificate/.test(server.log));
  assert.match(await b.run("libstorage service ls"), /^vfs +vfs/m);
}

async function oneWriter(): Promise<void> {
  const { a, b } = hosts;
  await b.run("libstorage volume create shared");
  const client = clientOnB({});
  const volumeID = await a.run("ls /srv/volumes/vol | sed -n 's/.json$//p'");
  const context = { instanceIDs: [ON_B] };
  await client.call("volumeAttach", { service: "vfs", volumeID }, {}, context);
  assert.match(await b.run("libstorage volume ls"), /shared.* attached /);
  const { code, stderr } = await a.attempt("libstorage volume attach shared");
  assert.equal(code, 1);
  assert.match(stderr, /\bb\b/, "the holder is named");
  await client.call("volumeDetach", { service: "vfs", volumeID }, {}, context);
  await a.run("libstorage volume attach shared && libstorage volume detach shared");
  await b.run("libstorage volume rm shared");
  client.close();
}

async function lostAnswer(): Promise<void> {
  const { a, network } = hosts;
  // A timeout is the caller's to judge: the library does not repeat after it.
  const client = clientOnB({ responseTimeoutMs: 15_000 });
  const params = { service: "vfs" };
  assert.deepEqual(await client.call("volumesByService", params, undefined), {});
  // The request arrives, and the link is gone before the server reads it.
  server.freeze();
  const context = { idempotencyKey: "lab-lost-answer" };
  const first = client.call("volumeCreate", params, { name: "once" }, context);
  const failed = assert.rejects(first, { code: "deadline-exceeded" });
  await until("the request is there", async () => (await unread(a)) > 0);
  await network.cut();
  server.thaw();
  await until("the volume is made", async () => count(await namesOnA(), "once") === 1);
  await failed;
  await network.restore();

  const volume = await client.call("volumeCreate", params, { name: "once" }, context);
  assert.equal(volume.name, "once");
  assert.equal(count(await namesOnA(), "once"), 1);
  // Without the key it would have been a second one.
  await client.call("volumeCreate", params, { name: "once" }, { idempotencyKey: "another" });
  assert.equal(count(await namesOnA(), "once"), 2);
  client.close();
}

async function restartUnderClient(): Promise<void> {
  const { a } = hosts;
  const client = clientOnB({ repeatMs: 180_000, responseTimeoutMs: 180_000 });
  const source = await client.call("volumeCreate", { service: "vfs" }, { name: "source" });
  await a.run(`head -c 200M /dev/urandom > ${VOLUMES}/vol/${source.id}/large`, {
    limitMs: 120_000,
  });
  const params = { service: "vfs", volumeID: source.id };
  const copied = client.call("volumeCopy", params, { volumeName: "copied" });
  // Whatever happens first, it must not be an unhandled rejection.
  copied.catch(() => {});
  await until("the copy has begun", async () =>
    (await a.run(`ls -A ${VOLUMES}/vol`)).includes(".tmp-"),
  );
  await server.kill();
  server = await LabServer.start(a, CONFIG);
  const { id } = await copied;
  assert.equal(count(await namesOnA(), "copied"), 1);
  await a.run(`cmp ${VOLUMES}/vol/${source.id}/large ${VOLUMES}/vol/${id}/large`);
  assert.doesNotMatch(await a.run(`ls -A ${VOLUMES}/vol`), /\.tmp-/);
  client.close();
}

async function frozenClient(): Promise<void> {
  const { a, b } = hosts;
  const client = clientOnB({});
  await client.call("volumesByService", { service: "vfs" }, undefined);
  server.freeze();
  const created = client.call("volumeCreate", { service: "vfs" }, { name: "patient" });
  await until("the request is there", async () => (await unread(a)) > 0);
  await b.pause();
  server.thaw();
  await until("the volume is made", async () => count(await namesOnA(), "patient") === 1);
  await b.resume();
  assert.equal((await created).name, "patient");
  client.close();
}

async function deadHolder(): Promise<void> {
  const { a, b } = hosts;
  const client = clientOnB({});
  const { id: volumeID } = await client.call("volumeCreate", { service: "vfs" }, { name: "held" });
  const params = { service: "vfs", volumeID };
  await client.call("volumeAttach", params, {}, { instanceIDs: [ON_B] });
  await b.kill();
  const refused = await a.attempt("libstorage volume attach held");
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /\bb\b/, "the holder is named although it is dead");
  await a.run("libstorage volume detach --force held");
  await a.run("libstorage volume attach held");
  await b.restart();
  assert.match(await b.run("libstorage volume ls"), /held .*in use .*\ba\b/);
}

async function nothingLeft(): Promise<void> {
  const { a, b } = hosts;
  await a.run("libstorage volume detach held");
  const ids = await a.run(`ls ${VOLUMES}/vol | sed -n 's/.json$//p' | tr '\\n' ' '`);
  await b.run(`libstorage volume rm ${ids}`);
  assert.equal(await a.run(`find ${VOLUMES}/vol ${VOLUMES}/snap -mindepth 1`), "");
  assert.equal(await server.stop(), 0);
}

describe("two hosts", { timeout: 1_500_000 }, () => {
  before(async () => {
    hosts = await startTwoHosts({ a: {}, b: {} });
    await configure(hosts);
    server = await LabServer.start(hosts.a, CONFIG);
  });
  after(async () => hosts?.remove());

  it("turns a host without a certificate away, and serves one that has it", refusesStrangers);
  it("keeps a second host off an attached volume, and names the first", oneWriter);
  it("makes one volume when the answer is lost and the client asks again", lostAnswer);
  it(
    "answers a client that waited while the server was killed and started again",
    restartUnderClient,
  );
  it("answers a client whose host was frozen meanwhile", frozenClient);
  it("lets a dead host's volume be taken, by force only", deadHolder);
  it("leaves nothing when all is removed", nothingLeft);
});
