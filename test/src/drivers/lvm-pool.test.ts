/** lvm-iscsi on a group in memory: what is thin and what is thick, and what is done as a pool fills. */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { DRIVERS } from "@libstorage/server";
import type { StorageDriver } from "@libstorage/server";
import { contextOf, snapshotOf, volumeOf } from "../conformance/fixture.js";
import { openOver, withDriverOver } from "./lvm-fake.js";
import { VolumeGroupModel } from "./lvm-model.js";

const MIB = 1024 ** 2;
const context = contextOf();
const isRoot = process.getuid?.() === 0;
const skip = isRoot ? false : "only root may lock a part of a volume group, in /run/lock";
const GROUP = `pool${process.pid}`;
const QUICK = { checkSeconds: 0.2, allowLarger: true };

function checked(config: object) {
  return v.safeParse(DRIVERS["lvm-iscsi"].config, { volumeGroup: GROUP, ...config });
}

async function withDriver(
  config: object,
  act: (driver: StorageDriver, model: VolumeGroupModel) => Promise<void>,
): Promise<void> {
  const { output, issues } = checked({ defaultSize: "8M", watchSeconds: 3600, ...config });
  assert.equal(issues, undefined);
  await withDriverOver(output as { volumeGroup: string }, context, act);
}

function create(driver: StorageDriver, number: number, fields: Record<string, string> = {}) {
  return driver.volumeCreate(volumeOf(driver, number, { fields }), context);
}

async function until(isSo: () => boolean, what: string): Promise<void> {
  for (let left = 400; left > 0; left -= 1) {
    if (isSo()) return;
    await sleep(50);
  }
  assert.fail(`not within the time: ${what}`);
}

describe("lvm-iscsi, thin and thick side by side", { skip }, () => {
  after(() => rm(`/run/lock/libstorage/lvm-iscsi/${GROUP}.lvm-`, { recursive: true, force: true }));

  it("the service says what a volume is, and a request may say otherwise", async () => {
    for (const provisioning of ["thin", "thick"] as const)
      await withDriver({ thinPool: "pool", provisioning }, async (driver, model) => {
        const [usual, thin, thick] = [
          await create(driver, 0),
          await create(driver, 1, { provisioning: "thin" }),
          await create(driver, 2, { provisioning: "thick" }),
        ];
        assert.equal(model.poolOf(usual.id), provisioning === "thin" ? "pool" : "");
        assert.equal(model.poolOf(thin.id), "pool");
        assert.equal(model.poolOf(thick.id), "");
      });
  });

  it("a copy and a snapshot lie as their source does, and nothing is left of either", async () => {
    await withDriver({ thinPool: "pool" }, async (driver, model) => {
      for (const [number, kind] of (["thin", "thick"] as const).entries()) {
        const volume = await create(driver, number, { provisioning: kind });
        const snapshot = snapshotOf(driver, number, volume);
        await driver.snapshots?.snapshotCreate(volume, snapshot, context);
        const wanted = volumeOf(driver, number + 2, { fields: volume.fields });
        const copy = await driver.volumeCopy?.(volume, wanted, context);
        for (const id of [snapshot.id, copy?.id ?? ""])
          assert.equal(model.poolOf(id), kind === "thin" ? "pool" : "", id);
        await driver.reverts?.volumeRevert(volume, snapshot, context);
        assert.equal(model.poolOf(volume.id), kind === "thin" ? "pool" : "");
        const other = { provisioning: kind === "thin" ? "thick" : "thin" };
        const differing = volumeOf(driver, 8, { fields: other });
        const copying = driver.volumeCopy?.(volume, differing, context);
        await assert.rejects(copying ?? Promise.resolve(), { code: "invalid-argument" });
        await driver.snapshots?.snapshotRemove(snapshot.id, context);
        await driver.volumeRemove(volume.id, context);
        await driver.volumeRemove(wanted.id, context);
      }
      assert.deepEqual(model.names(), ["pool"]);
    });
  });

  it("what cannot be is refused: no pool, no such word, a service that is thin without one", async () => {
    await withDriver({}, async (driver, model) => {
      await assert.rejects(create(driver, 0, { provisioning: "thin" }), {
        code: "invalid-argument",
        message: /no thin pool/,
      });
      await assert.rejects(create(driver, 0, { provisioning: "fat" }), {
        code: "invalid-argument",
      });
      assert.deepEqual(model.names(), ["pool"]);
    });
    assert.match(checked({ provisioning: "thin" }).issues?.[0]?.message ?? "", /set thinPool/);
  });

  it("a full pool keeps out what would be in it, and nothing else", async () => {
    await withDriver({ thinPool: "pool", pool: QUICK }, async (driver, model) => {
      const thin = await create(driver, 0);
      model.setFill({ data: 95 });
      await sleep(1_500);
      await assert.rejects(create(driver, 1), {
        code: "resource-exhausted",
        message: /95 % of its data/,
      });
      const snapshot = snapshotOf(driver, 0, thin);
      const snapping = driver.snapshots?.snapshotCreate(thin, snapshot, context);
      await assert.rejects(snapping ?? Promise.resolve(), { code: "resource-exhausted" });
      await create(driver, 1, { provisioning: "thick" });
    });
  });

  it("a pool that is not well keeps out what would be in it, until it is well again", async () => {
    await withDriver({ thinPool: "pool", pool: QUICK }, async (driver, model) => {
      const thin = await create(driver, 0);
      for (const health of ["out_of_data", "metadata_read_only", "failed"]) {
        model.setHealth(health);
        await sleep(1_000);
        const refusal = {
          code: "failed-precondition",
          message: new RegExp(`not well \\(${health}\\).*lvconvert --repair`),
        };
        await assert.rejects(create(driver, 1), refusal);
        const snapshot = snapshotOf(driver, 0, thin);
        const snapping = driver.snapshots?.snapshotCreate(thin, snapshot, context);
        await assert.rejects(snapping ?? Promise.resolve(), refusal);
        await create(driver, 2, { provisioning: "thick" });
        await driver.volumeRemove(volumeOf(driver, 2).id, context);
        assert.deepEqual(model.names(), ["pool", thin.id], "a refusal leaves nothing");
      }
      model.setHealth("");
      await sleep(1_000);
      await create(driver, 1);
    });
  });

  it("a service does not start on a pool that has failed", async () => {
    const model = new VolumeGroupModel(GROUP, "pool");
    model.setHealth("failed");
    const { output } = checked({ thinPool: "pool" });
    await assert.rejects(openOver(model, output as object, context), {
      code: "failed-precondition",
      message: /has failed; repair it: lvconvert --repair/,
    });
  });
});

describe("the limits of a pool's data and metadata", { skip }, () => {
  after(() => rm(`/run/lock/libstorage/lvm-iscsi/${GROUP}.lvm-`, { recursive: true, force: true }));

  const pool = {
    ...QUICK,
    refuseAt: 90,
    suspendAt: 97,
    extendAt: 80,
    metadata: { refuseAt: 60, suspendAt: 70, extendAt: 40, extendBy: "100%" },
  };

  it("the metadata's own keep new volumes out, and the error says which part is full", async () => {
    const limits = { ...pool, metadata: { refuseAt: 60, suspendAt: 70 } };
    await withDriver({ thinPool: "pool", pool: limits }, async (driver, model) => {
      model.setFill({ data: 65 });
      await sleep(1_000);
      await create(driver, 0);
      model.setFill({ metadata: 65 });
      await sleep(1_500);
      await assert.rejects(create(driver, 1), (error: Error) => {
        assert.match(error.message, /65 % of its metadata are used, and 60 % is the limit/);
        assert.match(error.message, /--poolmetadatasize/);
        assert.doesNotMatch(error.message, /of its data/);
        return true;
      });
    });
  });

  it("are looked at in time, however long the interval is", async () => {
    const model = new VolumeGroupModel(GROUP, "pool", 100 * MIB);
    // What is left of 100 MiB of metadata is written in less than a second.
    model.setFill({ metadata: 90 });
    const rare = { pool: { ...QUICK, checkSeconds: 600 } };
    const { output } = checked({ thinPool: "pool", watchSeconds: 3600, ...rare });
    const driver = await openOver(model, output as object, context);
    try {
      await create(driver, 0);
      model.setFill({ metadata: 93 });
      const looks = (): number => model.lines.filter((line) => /^lvs .*=pool /.test(line)).length;
      const before = looks();
      await until(() => looks() > before + 1, "it is looked at twice more");
      await assert.rejects(create(driver, 1), { code: "resource-exhausted" });
    } finally {
      await driver.close();
    }
  });

  it("each part is extended at its own limit, by its own step", async () => {
    await withDriver({ thinPool: "pool", pool }, async (_driver, model) => {
      const before = model.poolSize;
      model.setFill({ data: 85, metadata: 45 });
      await until(() => model.poolSize.metadata > before.metadata, "the metadata grows");
      assert.equal(model.poolSize.data, before.data, "nothing says how far data are extended");
    });
    const data = { extendBy: "64M", extendTo: "2T" };
    await withDriver({ thinPool: "pool", pool: { ...QUICK, data } }, async (_driver, model) => {
      const before = model.poolSize;
      model.setFill({ data: 86, metadata: 86 });
      await until(() => model.poolSize.data >= before.data + 64 * MIB, "the data grow");
      assert.equal(model.poolSize.metadata, before.metadata);
    });
  });

  it("limits out of order are refused, of either part", () => {
    const words = (limits: object): string => checked({ pool: limits }).issues?.[0]?.message ?? "";
    assert.match(words({ refuseAt: 98 }), /refuseAt/);
    assert.match(words({ metadata: { suspendAt: 80 } }), /refuseAt/);
    assert.equal(words({ metadata: { suspendAt: 80, refuseAt: 70 } }), "");
    assert.notEqual(words({ data: { extendTo: "much" } }), "");
    assert.notEqual(words({ data: { nonsense: 1 } }), "");
  });
});
