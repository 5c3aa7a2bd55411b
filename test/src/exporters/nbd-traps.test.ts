/** Traps of QEMU's storage daemon that no error shows: requests that arrive after the cut, and answers that are held back. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import { closeSync, openSync, readFileSync, readSync, readdirSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { toolsMissing } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";
import { Client } from "./client.js";
import { DoorHost, MIB, through } from "./door-host.js";

const skip = toolsMissing("qemu-img", "qemu-io", "qemu-storage-daemon", "perl");

/** What the kernel says. @see tcp(7) */
function hasNoDelay(socket: Socket): boolean {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const script =
    'open(my $s, "+<&=", 3) or die $!; print unpack("i", getsockopt($s, IPPROTO_TCP, TCP_NODELAY))';
  const said = execFileSync("perl", ["-MSocket=IPPROTO_TCP,TCP_NODELAY", "-e", script], {
    stdio: ["ignore", "pipe", "inherit", fd],
    encoding: "utf8",
  });
  return said !== "0";
}

/** The TCP connections that servers of this process accept meanwhile. */
async function accepted(act: (sockets: readonly Socket[]) => Promise<void>): Promise<void> {
  const sockets: Socket[] = [];
  const listener = (message: unknown): void => {
    const { socket } = message as { readonly socket: Socket };
    if (socket.remoteFamily !== undefined) sockets.push(socket);
  };
  subscribe("net.server.socket", listener);
  try {
    await act(sockets);
  } finally {
    unsubscribe("net.server.socket", listener);
  }
}

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
});

function pidsBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith("/pid"))
    .map((name) => readFileSync(join(folder, name), "utf8"));
}
