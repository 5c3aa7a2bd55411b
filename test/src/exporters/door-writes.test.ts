/** What may be written through a door, and what of it outlives the daemon without a flush. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import type { Export, ExportAddRequest } from "@libstorage/model";
import { makeScratch } from "../faults/folders.js";
import { Client, until } from "./client.js";
import { DoorHost, SERVICE, through } from "./door-host.js";
import { imageOf, liveMissing as skip } from "./live-client.js";
import { ended } from "./nbd-client.js";

const MIB = 1024 ** 2;

describe("writing through doors", { skip }, () => {
  const scratch = makeScratch("w");
  let host: DoorHost;

  before(async () => {
    host = await DoorHost.open(scratch.path);
  });
  afterEach(async () => {
    await host.clear();
  });
  after(async () => {
    await host.close();
    await scratch.remove();
  });

  const daemons = join(scratch.path, "l/qsd");
  const foldersOfDaemons = (): string[] =>
    existsSync(daemons)
      ? readdirSync(daemons).flatMap((one) =>
          readdirSync(join(daemons, one)).map((name) => join(daemons, one, name)),
        )
      : [];

  /** Of the daemons that have volumes open, not of those that only show a file. */
  const pids = (): number[] =>
    foldersOfDaemons()
      .filter((folder) => !/\/f-[^/]*$/.test(folder) && existsSync(join(folder, "pid")))
      .map((folder) => Number(readFileSync(join(folder, "pid"), "utf8")));

  const types = ["nbd", "fuse", "vhost-user-blk"] as const;

  it("an ISO file is not exported as writable by any door, and nothing changes", async () => {
    const folder = join(scratch.path, "root/import");
    mkdirSync(folder, { recursive: true });
    const iso = Buffer.alloc(64 * 1024);
    iso.write("\x01CD001", 32_768, "latin1");
    writeFileSync(join(folder, "x.iso"), iso);
    const volumeID = await host.volume("raw", { opts: { import: "x.iso", importFormat: "iso" } });
    const path = imageOf(host.storage.service(SERVICE), volumeID);
    const before = readFileSync(path);
    for (const type of types) {
      await assert.rejects(host.add({ volumeID, type, writable: true }), {
        code: "failed-precondition",
        message: /can only be read, as an ISO file/,
      });
      assert.deepEqual(await host.exports(), [], type);
      assert.deepEqual(foldersOfDaemons(), [], type);
    }
    for (const type of ["nbd", "fuse"] as const) {
      const door = await host.add({ volumeID, type });
      await through(door, "read -P 0 0 16k");
      const write = ["-f", "raw", "-c", "write 0 4k", door.deviceName];
      const { status, stdout, stderr } = await ended("qemu-io", ...write);
      const said = `${status} ${stdout}${stderr}`;
      assert.match(said, /read-only|Permission denied|not permitted/i, type);
      await host.remove(door.id ?? "", "hard");
    }
    assert.ok(before.equals(readFileSync(path)));
  });

  /** Writes without a flush. @returns what lets go of the door */
  async function write(door: Export): Promise<() => Promise<void>> {
    if (door.exporter === "nbd") {
      const client = new Client("-t", "writeback", door.deviceName);
      await client.says("write -P 7 8M 64k", /wrote 65536/);
      return () => client.end();
    }
    const file = await open(door.deviceName, "r+");
    await file.write(Buffer.alloc(64 * 1024, 7), 0, 64 * 1024, 8 * MIB);
    // To close it is to flush it.
    return () => file.close().catch(() => {});
  }

  /** Whether what was written is in the image when the daemon was killed. */
  async function outlives(request: Omit<ExportAddRequest, "volumeID">): Promise<boolean> {
    const volumeID = await host.volume("qcow2");
    const door = await host.add({ volumeID, writable: true, ...request });
    const letGo = await write(door);
    const before = pids();
    assert.equal(before.length, 1);
    for (const pid of before) process.kill(pid, "SIGKILL");
    await until("another daemon has the volume", () => pids().some((pid) => !before.includes(pid)));
    await letGo();
    await host.remove(door.id ?? "", "hard");
    const path = imageOf(host.storage.service(SERVICE), volumeID);
    const read = (byte: number) =>
      ended("qemu-io", "-f", "qcow2", "-c", `read -P ${byte} 8M 64k`, path);
    const [kept, lost] = [(await read(7)).status === 0, (await read(0)).status === 0];
    assert.notEqual(kept, lost, "all of it is there, or nothing");
    return kept;
  }

  it("what is written through a door with writethrough outlives the daemon, and only there", async () => {
    assert.equal(await outlives({ type: "nbd", writethrough: true }), true);
    assert.equal(await outlives({ type: "nbd", writethrough: false }), false);
    assert.equal(await outlives({ type: "nbd" }), false, "as QEMU's own");
  });

  it("a file is written through unless that is refused, since its users come again", async () => {
    assert.equal(await outlives({ type: "fuse" }), true);
    assert.equal(await outlives({ type: "fuse", writethrough: false }), false);
  });
});
