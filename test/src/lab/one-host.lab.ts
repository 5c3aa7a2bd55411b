/** The product as one host has it, from the sample configuration, on a stock kernel. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { VolumeMap } from "@libstorage/model";
import { until } from "./limit.js";
import { LabServer } from "./lab-server.js";
import { startMachine } from "./machine.js";
import type { Machine } from "./machine.js";

const CONFIG = "/project/config/single-host.yml";
const ROOT = "/var/lib/libstorage/vfs";
const DATA = "/var/lib/libstorage/volumes";

let host: Machine;
let server: LabServer;

async function volumes(): Promise<Record<string, string>> {
  const text = await host.run("libstorage volume ls --json");
  const { vfs = {} } = JSON.parse(text) as { vfs?: VolumeMap };
  return Object.fromEntries(Object.values(vfs).map(({ name, id }) => [name, id]));
}

async function leftovers(): Promise<string> {
  return host.run(
    `find ${ROOT}/vol ${ROOT}/snap -mindepth 1; grep -c ${DATA} /proc/mounts || true`,
  );
}

describe("one host", { timeout: 1_200_000 }, () => {
  before(async () => {
    host = await startMachine({ name: "one" });
  });
  after(async () => host?.remove());

  it("opens every driver of the sample, and serves it", async () => {
    const report = await host.run(`libstorage-server --check --config ${CONFIG}`);
    assert.match(report, /vfs/);
    server = await LabServer.start(host, CONFIG);
    assert.match(await host.run("libstorage service ls"), /^vfs +vfs/m);
  });

  it("mounts a volume, and a snapshot keeps what was there", async () => {
    await host.run("libstorage volume create first --size 1");
    assert.equal(await host.run("libstorage volume mount first"), `${DATA}/first/data`);
    await host.run(`echo before > ${DATA}/first/data/file`);
    await host.run("libstorage volume snapshot first moment");
    await host.run(`echo after > ${DATA}/first/data/file`);
    await host.run("libstorage snapshot create-volume moment second");
    await host.run("libstorage volume mount second");
    assert.equal(await host.run(`cat ${DATA}/second/data/file`), "before");
    assert.equal(await host.run(`cat ${DATA}/first/data/file`), "after");
  });

  it("takes back, or finishes, what a killed server had begun", async () => {
    await host.run(`head -c 300M /dev/urandom > ${DATA}/first/data/large`, { limitMs: 120_000 });
    const copy = host.start("libstorage volume copy first third");
    await until("the copy has begun", async () => {
      const { stdout } = await host.attempt(`ls -A ${ROOT}/vol`);
      return stdout.includes(".tmp-");
    });
    await server.kill();
    server = await LabServer.start(host, CONFIG);
    const { code } = await copy.ended;
    const there = await volumes();
    assert.deepEqual(Object.keys(there).sort(), [
      "first",
      "second",
      ...(code === 0 ? ["third"] : []),
    ]);
    assert.doesNotMatch(await host.run(`ls -A ${ROOT}/vol`), /\.tmp-/);
    if (code === 0) {
      const { first, third } = there;
      await host.run(`cd ${ROOT}/vol && cmp $(find ${first} ${third} -name large)`);
      await host.run("libstorage volume rm third");
    }
  });

  it("has its volumes again after a power cut", async () => {
    await host.run("sync");
    await host.restart();
    server = await LabServer.start(host, CONFIG);
    assert.deepEqual(Object.keys(await volumes()).sort(), ["first", "second"]);
    await host.run("libstorage volume mount first");
    assert.equal(await host.run(`cat ${DATA}/first/data/file`), "after");
    assert.match(await host.run("libstorage health"), /^status +ok$/m);
  });

  it("leaves nothing when all is given back", async () => {
    await host.run("libstorage volume unmount first");
    await host.attempt("libstorage volume detach second");
    await host.run("libstorage volume rm first second");
    await host.run("libstorage snapshot rm moment");
    assert.equal(await leftovers(), "0");
    assert.equal(await server.stop(), 0);
  });
});
