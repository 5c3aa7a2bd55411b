/** A logical volume through the doors that image volumes have: NBD, a file, and the disk of a virtual machine. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, statSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { DRIVERS } from "@libstorage/server";
import type { Export } from "@libstorage/model";
import { DoorHost, GIB, SERVICE, opens, through } from "../exporters/door-host.js";
import type { DoorHostOptions } from "../exporters/door-host.js";
import { ended, run } from "../exporters/nbd-client.js";
import { insideOneMachine } from "./inside.js";
import { configOf, GROUP, lvNames, makeGroup, makePool, POOL } from "./lvm-group.js";
import { sh } from "./shell.js";

let host: DoorHost;

async function volume(): Promise<string> {
  const { id } = await host.service.volumeCreate({ service: SERVICE }, { name: "v", size: 1 }, {});
  return id;
}

const door = (volumeID: string, type: string, more: object = {}): Promise<Export> =>
  host.add({ volumeID, type, writable: true, ...more } as Parameters<DoorHost["add"]>[0]);

const deviceOf = (id: string): string => `/dev/${GROUP}/${id}`;
const isActive = (id: string): boolean => existsSync(deviceOf(id));

/** Opened when the first comes, closed when the last goes. */
function oneAfterAnother(): void {
  it("what is written at one is read at each other, and the volume is let go after each", async () => {
    const id = await volume();
    assert.equal(isActive(id), false);
    const types = ["nbd", "nbd", "fuse"];
    for (const [index, type] of types.entries()) {
      const over = type === "nbd" && index === 1 ? { transport: "unix" } : {};
      const one = await door(id, type, over);
      assert.equal(isActive(id), true);
      if (index > 0) await through(one, `read -P ${index} ${index - 1}M 1M`);
      await through(one, `write -P ${index + 1} ${index}M 1M`, "flush");
      assert.equal(await host.remove(one.id ?? "", "hard"), null);
      assert.equal(isActive(id), false, type);
    }
    const disk = await door(id, "vhost-user-blk");
    assert.ok(statSync(disk.deviceName).isSocket());
    await host.remove(disk.id ?? "", "hard");
    await host.service.volumeRemove({ service: SERVICE, volumeID: id }, undefined, {});
    assert.deepEqual(lvNames(), [POOL]);
  });
}

function access(): void {
  it("one writes, and no other door opens beside it; no other QEMU writes to the device either", async () => {
    const id = await volume();
    const one = await door(id, "nbd");
    await through(one, "write -P 7 0 1M", "flush");
    await assert.rejects(door(id, "fuse"), { code: "failed-precondition" });
    const beside = await ended("qemu-io", "-f", "raw", "-c", "write -P 8 0 4k", deviceOf(id));
    assert.match(`${beside.status} ${beside.stdout}${beside.stderr}`, /lock/);
    await through(one, "read -P 7 0 1M");
    await host.remove(one.id ?? "", "hard");
    const readers = [
      await door(id, "nbd", { writable: false }),
      await door(id, "fuse", { writable: false }),
    ];
    for (const reader of readers) await through(reader, "read -P 7 0 1M");
    for (const { id: exportID = "" } of readers) await host.remove(exportID, "hard");
    await host.service.volumeRemove({ service: SERVICE, volumeID: id }, undefined, {});
  });
}

function growing(): void {
  it("grows while it is served", async () => {
    const id = await volume();
    const one = await door(id, "nbd");
    await through(one, "write -P 5 1023M 1M", "flush");
    await host.service.volumeExpand({ service: SERVICE, volumeID: id }, { size: 2 }, {});
    await through(one, "read -P 5 1023M 1M", "write -P 6 2047M 1M", "flush");
    const info = await run("qemu-img", "info", "--output=json", "-f", "raw", one.deviceName);
    assert.equal((JSON.parse(info) as { "virtual-size": number })["virtual-size"], 2 * GIB);
    await host.remove(one.id ?? "", "hard");
    await host.service.volumeRemove({ service: SERVICE, volumeID: id }, undefined, {});
  });
}

const TO_HOSTS = { exports: [], hasHosts: true, nbd: { listen: "127.0.0.1:19440" } };

function otherHosts(): void {
  it("is another host's by NBD, over a restart of the server", async () => {
    await host.close();
    await open(TO_HOSTS);
    const id = await volume();
    const { fields } = await host.attachToHost(id);
    const uri = `nbd://${fields["address"]}/${fields["export"]}`;
    await run("qemu-io", "-f", "raw", "-c", "write -P 9 0 1M", "-c", "flush", uri);
    await host.close();
    await open(TO_HOSTS);
    await run("qemu-io", "-f", "raw", "-c", "read -P 9 0 1M", uri);
    await host.detachFromHost(id);
    assert.equal(await opens(uri), false);
    assert.equal(isActive(id), false);
    await host.service.volumeRemove({ service: SERVICE, volumeID: id }, undefined, {});
    assert.deepEqual(lvNames(), [POOL]);
  });
}

async function open(more: DoorHostOptions = {}): Promise<void> {
  const driver = { module: DRIVERS["lvm-iscsi"], config: configOf(POOL) };
  host = await DoorHost.open("/suite/h", { driver, ...more });
}

insideOneMachine(import.meta.url, { diskMiB: [20_000], limitMs: 1_700_000 }, () => {
  describe("doors of a logical volume", () => {
    before(async () => {
      sh("modprobe fuse");
      makeGroup("/dev/vdc");
      makePool(POOL, "-L 4G");
      mkdirSync("/suite/h");
      await open();
    });
    after(() => host.close());
    oneAfterAnother();
    access();
    growing();
    otherHosts();
  });
});
