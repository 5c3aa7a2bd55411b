/** Other hands at the group: what is changed, renamed, taken away, or was never ours. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Change, StorageDriver } from "@libstorage/server";
import { contextOf, snapshotOf, volumeOf } from "../conformance/fixture.js";
import { until } from "./limit.js";
import { configOf, GROUP, openDriver, POOL } from "./lvm-group.js";
import { sh } from "./shell.js";

const context = contextOf();

/** A change of one group, and the words with which it is refused. */
const REFUSALS: readonly (readonly [string, string, RegExp])[] = [
  ["is exported", "vgexport -qq odd", /exported; import it first: vgimport/],
  [
    "belongs to another host",
    "vgimport -qq odd; vgchange -qq -y --systemid other odd",
    /belongs to the host with the system ID other/,
  ],
];

async function brokenOf(driver: StorageDriver, id: string): Promise<string | undefined> {
  return (await driver.list(context)).volumes.find((one) => one.id === id)?.broken;
}

export function handTests(): void {
  describe("other hands", () => {
    let driver: StorageDriver;
    before(async () => {
      const config = configOf(POOL, { prefix: "hand-", watchSeconds: 1 });
      driver = await openDriver(config, context);
    });
    after(() => driver.close());

    it("a change made by hand is noticed, and a change of our own is not", async () => {
      const volume = await driver.volumeCreate(volumeOf(driver, 0), context);
      await driver.list(context);
      const seen: Change[] = [];
      const stop = driver.watch?.((change) => seen.push(change));
      await driver.volumeUpdate({ ...volume, name: "other" }, context);
      await new Promise((resolve) => setTimeout(resolve, 3000));
      assert.deepEqual(seen, []);
      sh(`lvextend -qq -L 64M ${GROUP}/${volume.id}`);
      await until("the change is noticed", async () => seen.length > 0);
      assert.deepEqual(seen[0], { volumeIDs: [volume.id], snapshotIDs: [] });
      const found = await driver.volumeInspect(volume.id, context);
      assert.equal(found?.sizeBytes, 64 * 1024 ** 2);
      stop?.();
      await driver.volumeRemove(volume.id, context);
    });

    it("tags that were edited make a volume broken: it is shown and left alone", async () => {
      const volume = await driver.volumeCreate(volumeOf(driver, 1), context);
      const path = `${GROUP}/${volume.id}`;
      const [tag = ""] = sh(`lvs --noheadings -o lv_tags ${path}`).trim().split(",");
      sh(`lvchange -qq --deltag ${tag} --addtag ${tag.slice(0, -2)}xx ${path}`);
      assert.match((await brokenOf(driver, volume.id)) ?? "", /digest|changed/);
      await assert.rejects(driver.volumeUpdate(volume, context), { code: "failed-precondition" });
      sh(`lvchange -qq --deltag ${tag.slice(0, -2)}xx ${path}`);
      assert.match((await brokenOf(driver, volume.id)) ?? "", /no tags/);
      await assert.rejects(driver.volumeRemove(volume.id, context), {
        code: "failed-precondition",
        message: /remove it by hand: lvremove/,
      });
      sh(`lvchange -qq --addtag ${tag} --addtag my.own ${path}`);
      assert.equal(await brokenOf(driver, volume.id), undefined);
      // Tags of others stay over every change.
      await driver.volumeUpdate({ ...volume, name: "new" }, context);
      assert.match(sh(`lvs --noheadings -o lv_tags ${path}`), /my\.own/);
      await driver.volumeRemove(volume.id, context);
    });

    it("a volume that was renamed is broken, and says its name", async () => {
      const volume = await driver.volumeCreate(volumeOf(driver, 2), context);
      sh(`lvrename -qq ${GROUP} ${volume.id} hand-077`);
      assert.match((await brokenOf(driver, "hand-077")) ?? "", /record is that of hand-002/);
      sh(`lvrename -qq ${GROUP} hand-077 ${volume.id}`);
      await driver.list(context);
      await driver.volumeRemove(volume.id, context);
    });

    it("what is not ours is neither shown nor touched", async () => {
      sh(`lvcreate -qq -y -L 8M -n foreign ${GROUP}; lvcreate -qq -y -L 8M -n hand-x1 ${GROUP}`);
      sh(`lvcreate -qq -y -L 8M -n hand-005 ${GROUP}`);
      await assert.rejects(driver.volumeCreate(volumeOf(driver, 5), context), {
        code: "already-exists",
      });
      // As the core clears up after a create that failed.
      await driver.volumeRemove("hand-005", context);
      const { volumes } = await driver.list(context);
      assert.deepEqual(
        volumes.map(({ id, broken }) => ({ id, isBroken: broken !== undefined })),
        [{ id: "hand-005", isBroken: true }],
      );
      sh(`lvremove -qq -y ${GROUP}/foreign ${GROUP}/hand-x1 ${GROUP}/hand-005`);
    });

    it("a volume that was removed by hand is not found, and its removal is fine", async () => {
      const volume = await driver.volumeCreate(volumeOf(driver, 6), context);
      sh(`lvremove -qq -y ${GROUP}/${volume.id}`);
      const snapshot = driver.snapshots?.snapshotCreate(
        volume,
        snapshotOf(driver, 6, volume),
        context,
      );
      await assert.rejects(snapshot ?? Promise.resolve(), { code: "not-found" });
      await driver.volumeRemove(volume.id, context);
    });

    it("fifty creates at once go together", async () => {
      const commands: string[] = [];
      const { exec } = context;
      const counted = {
        ...context,
        exec: (...args: Parameters<typeof exec>) => {
          commands.push(args[0]);
          return exec(...args);
        },
      };
      const numbers = Array.from({ length: 50 }, (_none, number) => 100 + number);
      const wanted = numbers.map((number) => volumeOf(driver, number));
      await Promise.all(wanted.map((one) => driver.volumeCreate(one, counted)));
      assert.deepEqual(commands, ["lvcreate", "lvm"]);
      assert.equal((await driver.list(context)).volumes.length, 50);
      await Promise.all(wanted.map(({ id }) => driver.volumeRemove(id, context)));
      assert.deepEqual((await driver.list(context)).volumes, []);
    });
  });

  describe("a group that cannot be used", () => {
    before(() => {
      sh("pvcreate -qq /dev/vdd; vgcreate -qq odd /dev/vdd");
    });
    for (const [title, script, message] of REFUSALS)
      it(`${title}: it says so`, async () => {
        sh(script);
        const open = openDriver(configOf(undefined, { volumeGroup: "odd" }), context);
        await assert.rejects(open, { code: "failed-precondition", message });
      });
    it("is not there, or has no such pool: it says so", async () => {
      const none = openDriver(configOf(undefined, { volumeGroup: "none" }), context);
      await assert.rejects(none, { code: "failed-precondition", message: /no volume group/ });
      const noPool = openDriver(configOf("nopool"), context);
      await assert.rejects(noPool, { message: /there is no thin pool vg0\/nopool/ });
      sh(`lvcreate -qq -y -L 8M -n plain ${GROUP}`);
      await assert.rejects(openDriver(configOf("plain"), context), { message: /is no thin pool/ });
      sh(`lvremove -qq -y ${GROUP}/plain`);
    });
  });
}
