/** Cases of btrfs with a quota that is on. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DRIVERS } from "@libstorage/server";
import type { Ability, StorageDriver, VolumeRecord } from "@libstorage/server";
import { GIB } from "@libstorage/model";
import { contextOf } from "../conformance/fixture.js";
import type { Case, Fixture } from "../conformance/fixture.js";
import { run } from "../conformance/tree.js";
import { until } from "../lab/limit.js";
import { switchQuotaOn } from "./btrfs-loop.js";
import type { LoopQuota } from "./btrfs-loop.js";
import { pathOf } from "./btrfs-traps.js";
import { rootOf } from "./vfs-records.js";

/** @returns whether that much could be written */
function allocate(volume: VolumeRecord, name: string, mib: number): boolean {
  const file = join(pathOf(volume), name);
  const { status, stderr } = spawnSync("fallocate", ["--length", `${mib}MiB`, file], {
    encoding: "utf8",
  });
  if (status !== 0) assert.match(stderr, /Disk quota exceeded/);
  return status === 0;
}

/** By the name of the folder. */
function limits(root: string): Map<string, string> {
  const report = run("btrfs", ["qgroup", "show", "-r", "--raw", root]);
  const lines = report.matchAll(/^0\/\d+ +\d+ +\d+ +(\S+) +\S*\/([^/\s]+) *$/gm);
  return new Map([...lines].map(([, limit = "", name = ""]) => [name, limit]));
}

async function quotaOf({ driver }: Fixture): Promise<Ability> {
  const found = (await driver.abilities(contextOf())).find(({ name }) => name === "quota");
  return found ?? assert.fail("no such ability");
}

/** With a driver on the same root whose quota is switched off, as after a change of the configuration. */
async function withoutQuota(
  fixture: Fixture,
  act: (driver: StorageDriver) => Promise<void>,
): Promise<void> {
  const root = await rootOf(fixture);
  await fixture.driver.close();
  const driver = await DRIVERS.btrfs.open({ root, quota: "off" }, contextOf());
  try {
    await driver.list(contextOf());
    await act(driver);
  } finally {
    await driver.close();
    await fixture.reopen();
  }
}

/** Lists until no volume is without its limit. */
async function listUntilLimited(fixture: Fixture): Promise<void> {
  await until("every volume has its limit", async () => {
    await fixture.list();
    return !/without/.test((await quotaOf(fixture)).detail);
  });
}

/** The groups of subvolumes there are. */
function groups(root: string): string[] {
  const report = run("btrfs", ["qgroup", "show", "--raw", root]);
  return [...report.matchAll(/^0\/\d+/gm)].map(([id]) => id);
}

export const QUOTA_CASES: readonly Case[] = [
  {
    title: "a volume cannot grow beyond its size, and can after it was expanded",
    async run(fixture) {
      const volume = await fixture.create(0, { sizeBytes: GIB });
      assert.ok(allocate(volume, "file", 500));
      assert.ok(!allocate(volume, "file", 1100));
      await fixture.driver.volumeExpand?.(volume, 2 * GIB, contextOf());
      assert.ok(allocate(volume, "file", 1100));
    },
  },
  {
    title: "copies have limits of their own, not their source's",
    async run(fixture) {
      const source = await fixture.create(0, { sizeBytes: GIB });
      const snapshot = await fixture.snapshot(0, source);
      const larger = fixture.volume(1, { sizeBytes: 2 * GIB });
      assert.ok(allocate(await fixture.copyVolume(source, larger, contextOf()), "file", 1100));
      const limited = fixture.volume(2, { sizeBytes: GIB });
      const same = await fixture.snapshots.volumeCreateFromSnapshot(snapshot, limited, contextOf());
      assert.ok(!allocate(same, "file", 1100));
      const without = fixture.volume(3, { sizeBytes: 0 });
      assert.ok(allocate(await fixture.copyVolume(source, without, contextOf()), "file", 1100));
    },
  },
  {
    title: "limits that make the tool's JSON abort are in nobody's way",
    async run(fixture) {
      await fixture.create(0, { sizeBytes: GIB });
      const quota = (await fixture.driver.abilities(contextOf())).find(
        ({ name }) => name === "quota",
      );
      assert.equal(quota?.available, true);
      assert.match(quota?.detail ?? "", /quota/);
      await fixture.reopen();
      assert.equal((await fixture.list()).volumes.length, 1);
    },
  },
  {
    title: "limits that are lost when quota is switched off and on by hand are set again",
    async run(fixture) {
      const root = await rootOf(fixture);
      const volume = await fixture.create(0, { sizeBytes: GIB });
      await fixture.list();
      const kind: LoopQuota = /simple/.test((await quotaOf(fixture)).detail) ? "simple" : "qgroup";
      for (const how of ["as the error says", "too quickly to be seen", "by the next start"]) {
        run("btrfs", ["quota", "disable", root]);
        if (how === "as the error says")
          await assert.rejects(fixture.create(1), /was switched off.*btrfs quota enable/);
        if (how === "by the next start") await fixture.driver.close();
        assert.equal(switchQuotaOn(root, kind), undefined);
        assert.equal(limits(root).get(volume.id), "none", "quota has lost them");
        if (how === "by the next start") await fixture.reopen();
        assert.match((await quotaOf(fixture)).detail, /1 volume is without its limit/);
        await listUntilLimited(fixture);
        assert.ok(!allocate(volume, "file", 1100), how);
      }
    },
  },
  {
    title: "volumes that were made without quota get their limits when the service has one",
    async run(fixture) {
      const numbers = Array.from({ length: 40 }, (_, index) => index);
      const sizes = new Map<string, number>();
      await withoutQuota(fixture, async (driver) => {
        await driver.volumeCreate(fixture.volume(51, { sizeBytes: 0 }), contextOf());
        for (const number of numbers)
          await driver.volumeCreate(fixture.volume(number, { sizeBytes: GIB }), contextOf());
      });
      // What grows meanwhile keeps its new size, whichever comes first.
      const listing = fixture.list();
      await Promise.all(
        numbers.map(async (number) => {
          const volume = fixture.volume(number, { sizeBytes: GIB });
          await sleep(number);
          const sizeBytes = number % 2 === 0 ? GIB : 2 * GIB;
          sizes.set(volume.id, sizeBytes);
          if (sizeBytes > GIB) await fixture.driver.volumeExpand?.(volume, sizeBytes, contextOf());
        }),
      );
      await listing;
      await listUntilLimited(fixture);
      const found = limits(await rootOf(fixture));
      for (const [id, sizeBytes] of sizes) assert.equal(found.get(id), String(sizeBytes), id);
      assert.equal(found.get(fixture.volume(51).id), "none");
      const {
        volumes: [first],
      } = await fixture.list();
      assert.ok(first !== undefined && !allocate(first, "file", 1100));
    },
  },
  {
    title: "a service whose quota is off takes away the limits that are in its way",
    async run(fixture) {
      const source = await fixture.create(0, { sizeBytes: GIB });
      const snapshot = await fixture.snapshot(0, source);
      const context = contextOf();
      await withoutQuota(fixture, async (driver) => {
        const copied = await driver.volumeCopy?.(source, fixture.volume(1), context);
        const made = await driver.snapshots?.volumeCreateFromSnapshot(
          snapshot,
          fixture.volume(2),
          context,
        );
        const grown = await driver.volumeExpand?.(source, 2 * GIB, context);
        for (const volume of [copied, made, grown]) {
          assert.ok(volume !== undefined);
          assert.ok(allocate(volume, "file", 1100), `${volume.id} stops at a limit`);
          rmSync(join(pathOf(volume), "file"));
        }
        const reverted = await driver.reverts?.volumeRevert(source, snapshot, context);
        assert.ok(reverted !== undefined && allocate(reverted, "file", 1100));
      });
    },
  },
  {
    title: "groups of removed volumes do not stay behind",
    async run(fixture) {
      const root = await rootOf(fixture);
      const clean = (): void => {
        run("btrfs", ["filesystem", "sync", root]);
        run("btrfs", ["subvolume", "sync", root]);
      };
      clean();
      await fixture.reopen();
      const before = groups(root);
      for (const number of [0, 1, 2])
        writeFileSync(join(pathOf(await fixture.create(number)), "file"), "x".repeat(10_000));
      assert.equal(groups(root).length, before.length + 3);
      for (const number of [0, 1, 2])
        await fixture.driver.volumeRemove(fixture.volume(number).id, contextOf());
      clean();
      await fixture.reopen();
      assert.deepEqual(groups(root), before);
    },
  },
];
