/** Traps of QEMU's storage daemon that no error shows: requests that arrive after the cut, and answers that are held back. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, readSync, readdirSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { EXPORTERS } from "@libstorage/server";
import * as v from "valibot";
import { attachmentOf, contextOf } from "../conformance/fixture.js";
import { toolsMissing } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";
import { loopMissing, makeLoop } from "../loop.js";
import { accepted, hasNoDelay } from "./accepted.js";
import { Client } from "./client.js";
import { DoorHost, MIB, SERVICE, through } from "./door-host.js";
import { run, uriOf } from "./nbd-client.js";

const skip = toolsMissing("qemu-img", "qemu-io", "qemu-storage-daemon", "perl");

const REQUEST = 3 * MIB;

/** What the first request writes, as it is on the disk. */
function startOf(path: string): Buffer {
  const bytes = Buffer.alloc(REQUEST);
  const file = openSync(path, "r");
  try {
    assert.equal(readSync(file, bytes, 0, REQUEST, 0), REQUEST);
  } finally {
    closeSync(file);
  }
  return bytes;
}

describe("traps of storage daemons", { skip }, () => {
  const scratch = makeScratch("nt");
  let host: DoorHost;
  before(async () => {
    host = await DoorHost.open(scratch.path, { exports: ["nbd"] });
  });
  after(async () => {
    for (const { id = "" } of await host.exports()) await host.remove(id, "hard");
    await host.close();
    await scratch.remove();
  });

  it("no answer waits for the next one: TCP_NODELAY is set where clients are accepted", async () => {
    await accepted(async (sockets) => {
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      const own = connect((server.address() as AddressInfo).port, "127.0.0.1");
      await once(server, "connection");
      assert.deepEqual(sockets.map(hasNoDelay), [false], "what it is otherwise");
      own.destroy();
      server.close();
    });
    const door = await host.add({ volumeID: await host.volume(), type: "nbd", id: "t" });
    await accepted(async (sockets) => {
      const client = new Client("-r", door.deviceName);
      await client.says("read 0 4k", /read 4096/);
      assert.deepEqual(sockets.map(hasNoDelay), [true]);
      await client.end();
    });
    await host.remove("t", "hard");
  });

  it("the answer to a hard removal waits for the event: no request is on its way, and none arrives after", async () => {
    const volumeID = await host.volume("raw", { opts: { format: "raw", shareable: true } });
    const throttle = { bpsTotal: MIB } as never;
    const wanted = { volumeID, type: "nbd", writable: true } as const;
    const door = await host.add({ ...wanted, id: "f", throttle });
    const other = await host.add({ ...wanted, id: "g" });
    const before = pidsBelow(scratch.path);
    const disk = join(host.folder, "root/vol", volumeID, "disk.raw");
    const client = new Client(door.deviceName);
    // It is let through, and paid for by the next, which waits for as many seconds.
    await client.says("write -P 1 0 3M", /wrote 3145728/);
    client.sends("write -P 2 0 3M");
    await sleep(500);
    assert.equal(startOf(disk)[0], 1, "it is on its way");
    await host.remove("f", "hard");
    const then = startOf(disk);
    await sleep(4000);
    assert.ok(startOf(disk).equals(then), "a write arrived after the answer");
    assert.deepEqual(pidsBelow(scratch.path), before, "no daemon had to be killed for it");
    await through(other, "read 0 4k");
    await client.end();
    await host.remove("g");
  });

  it(
    "so does the cut of a host that was attached, whose requests pass no filter",
    { skip: toolsMissing("fsfreeze") || loopMissing({ type: "ext4", sizeMiB: 32 }) },
    async () => {
      const loop = makeLoop({ type: "ext4", sizeMiB: 32 });
      if (typeof loop === "string") throw new Error(loop);
      const daemonFolder = join(scratch.path, "x");
      const config = v.parse(EXPORTERS.nbd.config, { listen: "127.0.0.1:0", daemonFolder });
      const context = { ...contextOf(), libFolder: scratch.path };
      const exporter = await EXPORTERS.nbd.open(config, context);
      const path = join(loop.folder, "disk.raw");
      writeFileSync(path, Buffer.alloc(2 * REQUEST, 1));
      const known = host.storage.service(SERVICE).inventory.volumes.get(await host.volume("raw"));
      assert.ok(known !== undefined);
      const volume = { ...known, source: { kind: "file", path, format: "raw" } as const };
      const holder = { id: "host-b", driver: "image", service: "" };
      const facts = { hostName: "b", addresses: ["127.0.0.1"] };
      const { fields } = await exporter.plan(volume, { holder, facts, epoch: 1 }, context);
      const hold = { volume, attachment: attachmentOf("host-b", { fields }) };
      await exporter.export(hold, context);
      const client = new Client(uriOf(hold));
      await client.says("read -P 1 0 3M", /read 3145728/);
      // Until it thaws no write to it ends.
      await run("fsfreeze", "--freeze", loop.folder);
      client.sends("write -P 2 0 3M");
      await sleep(500);
      let isCut = false;
      const cut = exporter.unexport(hold, context).then(() => (isCut = true));
      await sleep(2000);
      const wasCut = isCut;
      await run("fsfreeze", "--unfreeze", loop.folder);
      await cut;
      const then = startOf(path);
      await sleep(1000);
      const isSame = startOf(path).equals(then);
      await client.end();
      await exporter.unexport(hold, context);
      await exporter.close();
      loop.remove();
      assert.equal(wasCut, false, "the answer came while a write was on its way");
      assert.ok(isSame, "a write arrived after the answer");
    },
  );
});

function pidsBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith("/pid"))
    .map((name) => readFileSync(join(folder, name), "utf8"));
}
