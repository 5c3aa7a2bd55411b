/** A thin pool that fills: nothing that was written is lost, and it never overflows. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { StorageDriver } from "@libstorage/server";
import { attachmentOf, contextOf, snapshotOf, volumeOf } from "../conformance/fixture.js";
import { until, within } from "./limit.js";
import { configOf, GROUP, makePool, openDriver } from "./lvm-group.js";
import { sh } from "./shell.js";

const context = contextOf();
const MIB = 1024 ** 2;

function percentOf(pool: string): number {
  return Number(sh(`lvs --noheadings -o data_percent ${GROUP}/${pool}`));
}

const BLOCK = 64 * 1024;

/** 1 MiB in a second: nearly as slow as the machine looks at the pool. */
const WRITER = `
  const { openSync, writeSync, closeSync, constants } = require("node:fs");
  const [device, blocks] = process.argv.slice(1);
  const file = openSync(device, constants.O_WRONLY | constants.O_DSYNC);
  let block = 0;
  const write = () => {
    if (block === Number(blocks)) return closeSync(file);
    writeSync(file, Buffer.alloc(${BLOCK}, block % 251), 0, ${BLOCK}, block * ${BLOCK});
    block += 1;
    setTimeout(write, 60);
  };
  write();
`;

/** Writes blocks that differ from their neighbours, from the start of a device. */
function writer(device: string, blocks: number) {
  const child = spawn(process.execPath, ["-e", WRITER, device, String(blocks)], {
    stdio: "inherit",
  });
  let code: number | null | undefined;
  child.once("exit", (exit) => (code = exit));
  return { ended: () => code };
}

async function service(pool: string, limits: object): Promise<StorageDriver> {
  const wide = { allowLarger: true, ...limits };
  const config = configOf(pool, { prefix: `${pool}-`, pool: wide });
  return openDriver(config, context);
}

async function heldDevice(driver: StorageDriver) {
  const wanted = volumeOf(driver, 0, { sizeBytes: 256 * MIB });
  const made = await driver.volumeCreate(wanted, context);
  const volume = await driver.volumeAttach(made, attachmentOf("lab"), context);
  return { volume, device: volume.attachments[0]?.deviceName ?? "" };
}

export function poolTests(): void {
  describe("a thin pool that fills", () => {
    it("suspends its writers before it is full, and they go on once it has room", async () => {
      makePool("tight", "-L 32M");
      const driver = await service("tight", {
        warnAt: 30,
        extendAt: 85,
        refuseAt: 40,
        suspendAt: 60,
        checkSeconds: 1,
      });
      const { volume, device } = await heldDevice(driver);
      const dm = sh(`readlink -f ${device}`).slice("/dev/".length);
      const isSuspended = (): boolean => sh(`cat /sys/block/${dm}/dm/suspended`) === "1";
      // More than the pool holds.
      const blocks = 600;
      const { ended } = writer(device, blocks);
      await until("the writer waits", async () => isSuspended());
      await sleep(3000);
      assert.ok(percentOf("tight") < 100, `${percentOf("tight")} %`);
      assert.equal(ended(), undefined, "the writer neither failed nor ended");
      const another = driver.volumeCreate(volumeOf(driver, 1), context);
      await assert.rejects(another, { code: "resource-exhausted", message: /lvextend/ });
      const { freeBytes, totalBytes } = (await driver.capacity?.(context)) ?? {};
      assert.ok((freeBytes ?? 0) > 0 && (freeBytes ?? 0) < (totalBytes ?? 0) / 2);
      sh(`lvextend -qq -L 256M ${GROUP}/tight`);
      await until("the writer has ended", async () => ended() !== undefined);
      assert.equal(ended(), 0, "the writer lost nothing");
      const last = sh(`od -An -tu1 -N1 -j ${(blocks - 1) * BLOCK} ${device}`);
      assert.equal(last.trim(), String((blocks - 1) % 251));
      await driver.volumeDetach(volume, attachmentOf("lab").instanceID, false, context);
      await driver.volumeRemove(volume.id, context);
      await driver.close();
      sh(`lvremove -qq -y ${GROUP}/tight`);
    });

    it("looks in time, although it may wait for ten minutes", async () => {
      makePool("slow", "-L 32M");
      const limits = { warnAt: 60, extendAt: 85, refuseAt: 60, suspendAt: 60, checkSeconds: 600 };
      const driver = await service("slow", limits);
      const { volume, device } = await heldDevice(driver);
      const dm = sh(`readlink -f ${device}`).slice("/dev/".length);
      const { ended } = writer(device, 600);
      await until("the writer waits", async () => sh(`cat /sys/block/${dm}/dm/suspended`) === "1");
      assert.ok(percentOf("slow") < 100, `${percentOf("slow")} %`);
      assert.equal(ended(), undefined, "the writer neither failed nor ended");
      sh(`lvextend -qq -L 256M ${GROUP}/slow`);
      await until("the writer has ended", async () => ended() !== undefined);
      assert.equal(ended(), 0, "the writer lost nothing");
      await driver.volumeDetach(volume, attachmentOf("lab").instanceID, false, context);
      await driver.volumeRemove(volume.id, context);
      await driver.close();
      sh(`lvremove -qq -y ${GROUP}/slow`);
    });

    it("grows by itself as it is told, and no further", async () => {
      makePool("grow", "-L 16M");
      const limits = {
        warnAt: 20,
        extendAt: 30,
        extendBy: "16M",
        extendTo: "48M",
        refuseAt: 92,
        suspendAt: 97,
        checkSeconds: 0.5,
      };
      const driver = await service("grow", limits);
      const { volume, device } = await heldDevice(driver);
      const large = volumeOf(driver, 1, { sizeBytes: 256 * MIB });
      const strict = await service("grow", { ...limits, allowLarger: false });
      await assert.rejects(strict.volumeCreate(large, context), {
        code: "resource-exhausted",
        message: /256 MiB are more than the thin pool vg0\/grow can hold: it has 16 MiB/,
      });
      await strict.close();
      const { ended } = writer(device, 200);
      await until("the writer has ended", async () => ended() !== undefined);
      assert.equal(ended(), 0);
      await until("it has grown to its limit", async () => {
        const size = sh(`lvs --noheadings --units m --nosuffix -o lv_size ${GROUP}/grow`);
        return Number(size) === 48;
      });
      await sleep(2000);
      assert.equal(
        Number(sh(`lvs --noheadings --units m --nosuffix -o lv_size ${GROUP}/grow`)),
        48,
      );
      await driver.volumeDetach(volume, attachmentOf("lab").instanceID, false, context);
      await driver.volumeRemove(volume.id, context);
      await driver.close();
      sh(`lvremove -qq -y ${GROUP}/grow`);
    });

    it("wiping a volume takes nothing from a full pool, and does not wait for room", async () => {
      makePool("wiped", "-L 64M");
      const limits = { warnAt: 10, extendAt: 85, refuseAt: 90, suspendAt: 97, checkSeconds: 600 };
      const first = await service("wiped", limits);
      // Far larger than the pool: zeros over all of it would fill it.
      const { volume, device } = await heldDevice(first);
      sh(`dd if=/dev/urandom of=${device} bs=1M count=20 oflag=direct status=none`);
      const kept = snapshotOf(first, 0, volume);
      await first.snapshots?.snapshotCreate(volume, kept, context);
      const digest = sh(`head -c 20971520 ${device} | sha256sum`);
      const host = attachmentOf("lab").instanceID;
      const free = await first.volumeDetach(volume, host, false, context);
      await first.close();
      // From the start on the pool is above its limit.
      const full = { ...limits, refuseAt: 15, suspendAt: 20, checkSeconds: 0.2 };
      const config = { prefix: "wiped-", wipe: "zero", pool: { allowLarger: true, ...full } };
      const driver = await openDriver(configOf("wiped", config), context);
      const before = percentOf("wiped");
      await within(120_000, driver.volumeRemove(free.id, context), () => "the removal");
      assert.ok(percentOf("wiped") <= before, `${before} % before, ${percentOf("wiped")} % after`);
      assert.equal(sh(`lvs --noheadings -o lv_health_status ${GROUP}/wiped`).trim(), "");
      await driver.close();
      sh(`lvchange -qq -ay -K ${GROUP}/${kept.id}`);
      assert.equal(sh(`head -c 20971520 /dev/${GROUP}/${kept.id} | sha256sum`), digest);
      sh(`lvchange -qq --zero n ${GROUP}/wiped`);
      await assert.rejects(openDriver(configOf("wiped", config), context), {
        code: "failed-precondition",
        message: /lvchange --zero y vg0\/wiped/,
      });
      sh(`lvremove -qq -y ${GROUP}/wiped`);
    });

    it("a volume that waits can be taken away when nobody has it open", async () => {
      makePool("stuck", "-L 32M");
      const first = await service("stuck", {
        warnAt: 30,
        extendAt: 85,
        refuseAt: 92,
        suspendAt: 97,
        checkSeconds: 600,
      });
      const { volume, device } = await heldDevice(first);
      sh(`dd if=/dev/zero of=${device} bs=1M count=20 oflag=direct status=none`);
      await first.close();
      const driver = await service("stuck", {
        warnAt: 30,
        extendAt: 85,
        refuseAt: 40,
        suspendAt: 50,
        checkSeconds: 600,
      });
      const dm = sh(`readlink -f ${device}`).slice("/dev/".length);
      assert.equal(sh(`cat /sys/block/${dm}/dm/suspended`), "1", "suspended at the start");
      await driver.volumeDetach(volume, attachmentOf("lab").instanceID, false, context);
      await driver.volumeRemove(volume.id, context);
      await driver.close();
      sh(`lvremove -qq -y ${GROUP}/stuck`);
    });
  });
}
