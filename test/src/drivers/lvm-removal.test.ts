/** lvm-iscsi on a group in memory: what is removed and wiped, what is refused, and what goes later. */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { DRIVERS } from "@libstorage/server";
import type { StorageDriver } from "@libstorage/server";
import { contextOf, snapshotOf, volumeOf } from "../conformance/fixture.js";
import { openOver, withDriverOver } from "./lvm-fake.js";
import type { VolumeGroupModel } from "./lvm-model.js";

const context = contextOf();
const isRoot = process.getuid?.() === 0;
const skip = isRoot ? false : "only root may lock a part of a volume group, in /run/lock";
const REMOVED = "libstorage:removed";
const GROUP = `removal${process.pid}`;

function checked(config: object): { readonly volumeGroup: string } {
  const keys = { volumeGroup: GROUP, defaultSize: "8M", watchSeconds: 3600, ...config };
  return v.parse(DRIVERS["lvm-iscsi"].config, keys) as { volumeGroup: string };
}

const open = (model: VolumeGroupModel, config: object): Promise<StorageDriver> =>
  openOver(model, checked(config), context);

const withDriver = (
  config: object,
  act: (driver: StorageDriver, model: VolumeGroupModel) => Promise<void>,
): Promise<void> => withDriverOver(checked(config), context, act);

function create(driver: StorageDriver, number: number, fields: Record<string, string> = {}) {
  return driver.volumeCreate(volumeOf(driver, number, { fields }), context);
}

/** What was done to blocks, and what LVM was told to do. */
function doneTo(model: VolumeGroupModel, name: string): string[] {
  return model.lines
    .filter((line) => line.endsWith(`${GROUP}/${name}`))
    .map((line) => line.replace(`/dev/${GROUP}/`, "").replace(`${GROUP}/`, ""));
}

/** Zeros are written in the background over what was removed before. */
async function untilGone(model: VolumeGroupModel): Promise<void> {
  for (let left = 500; left > 0 && model.over().length > 0; left -= 1) await sleep(20);
}

after(() => rm(`/run/lock/libstorage/lvm-iscsi/${GROUP}.lvm-`, { recursive: true, force: true }));

describe("lvm-iscsi, what is wiped", { skip }, () => {
  const REMOVAL = ["lvchange -y -ay -K lvm-000", "lvremove -y lvm-000"];

  it("zeros go over a thick volume; a thin one gives its blocks back, and the pool zeroes them", async () => {
    const both = { thinPool: "pool", wipe: "zero" };
    for (const [provisioning, wiping] of [
      ["thin", "blkdiscard lvm-000"],
      ["thick", "blkdiscard --zeroout lvm-000"],
    ] as const)
      await withDriver(both, async (driver, model) => {
        const { id } = await create(driver, 0, { provisioning });
        model.lines.length = 0;
        await driver.volumeRemove(id, context);
        const [activate = "", remove = ""] = REMOVAL;
        assert.deepEqual(doneTo(model, id).slice(-3), [activate, wiping, remove]);
        assert.deepEqual(model.names(), ["pool"]);
        assert.deepEqual((await driver.list(context)).volumes, []);
      });
  });

  it("a pool that does not zero its blocks is refused, at the start and later", async () => {
    await withDriver({ thinPool: "pool", wipe: "zero" }, async (driver, model) => {
      const { id } = await create(driver, 0);
      model.isZeroing = false;
      const refused = {
        code: "failed-precondition",
        message: new RegExp(`lvchange --zero y ${GROUP}/pool`),
      };
      await assert.rejects(driver.volumeRemove(id, context), refused);
      assert.deepEqual((await driver.list(context)).volumes.length, 1, "it is left as it was");
      await assert.rejects(open(model, { thinPool: "pool", wipe: "zero" }), refused);
      await (await open(model, { thinPool: "pool", wipe: "discard" })).close();
      model.isZeroing = true;
      await driver.volumeRemove(id, context);
      assert.deepEqual(model.names(), ["pool"]);
    });
  });
});

describe("lvm-iscsi, what thick snapshots and copies keep", { skip }, () => {
  const wiped = (id: string): string[] => [
    `lvconvert -y --splitsnapshot ${id}`,
    `lvchange -y -an ${id}`,
    `lvchange -y -ay -K ${id}`,
    `blkdiscard --zeroout ${id}`,
    `lvremove -y ${id}`,
  ];

  it("is wiped with them: the space of a snapshot is made a volume first", async () => {
    await withDriver({ wipe: "zero" }, async (driver, model) => {
      const volume = await create(driver, 0);
      const snapshot = snapshotOf(driver, 0, volume);
      await driver.snapshots?.snapshotCreate(volume, snapshot, context);
      const copied = snapshotOf(driver, 1, volume);
      await driver.snapshots?.snapshotCopy?.(snapshot, copied, context);
      const copy = await driver.volumeCopy?.(volume, volumeOf(driver, 1), context);
      assert.deepEqual(doneTo(model, "lvm-001.still").slice(-5), wiped("lvm-001.still"));
      await driver.snapshots?.snapshotRemove(snapshot.id, context);
      const done = doneTo(model, snapshot.id);
      assert.match(done.at(-6) ?? "", /--deltag .* --addtag libstorage:removed/);
      assert.deepEqual(done.slice(-5), wiped(snapshot.id));
      await driver.snapshots?.snapshotRemove(copied.id, context);
      assert.deepEqual(doneTo(model, copied.id).slice(-2), wiped(copied.id).slice(-2));
      for (const id of [volume.id, copy?.id ?? ""]) await driver.volumeRemove(id, context);
      assert.deepEqual(model.names(), ["pool"]);
    });
  });

  it("is wiped where a copy or a revert was cut short", async () => {
    await withDriver({ wipe: "zero" }, async (driver, model) => {
      const volume = await create(driver, 0);
      const snapshot = snapshotOf(driver, 0, volume);
      await driver.snapshots?.snapshotCreate(volume, snapshot, context);
      model.refuse = /^dd /;
      const copying = driver.volumeCopy?.(volume, volumeOf(driver, 1), context);
      await assert.rejects(copying ?? Promise.resolve());
      for (const name of ["lvm-001.still", "lvm-001"])
        assert.deepEqual(doneTo(model, name).slice(-2), wiped(name).slice(-2));
      model.refuse = /^lvrename /;
      const reverting = driver.reverts?.volumeRevert(volume, snapshot, context);
      await assert.rejects(reverting ?? Promise.resolve());
      assert.deepEqual(doneTo(model, "lvm-000.next").slice(-2), wiped("lvm-000.next").slice(-2));
      assert.deepEqual(
        (await driver.list(context)).volumes.map(({ id }) => id),
        ["lvm-000"],
      );
    });
  });

  it("no half wiped copy comes back as the volume", async () => {
    await withDriver({ wipe: "zero" }, async (driver, model) => {
      const volume = await create(driver, 0);
      const snapshot = snapshotOf(driver, 0, volume);
      await driver.snapshots?.snapshotCreate(volume, snapshot, context);
      model.run("lvcreate", ["-L", "8b", "--addtag", REMOVED, "-n", "lvm-000.next", GROUP]);
      model.run("lvrename", [GROUP, volume.id, "lvm-000.old1"]);
      await driver.list(context);
      assert.equal(await driver.volumeInspect(volume.id, context), undefined);
      await driver.volumeRemove(volume.id, context);
      assert.ok(!model.names().includes(volume.id));
      assert.ok(!model.names().includes("lvm-000.next"));
    });
  });
});

describe("lvm-iscsi, a name that others give first", { skip }, () => {
  it("is left alone when the volume that was to get it is cleared up, also when it was seen meanwhile", async () => {
    for (const isSeen of [false, true])
      await withDriver({}, async (driver, model) => {
        const made = model.run("lvcreate", ["-L", "8388608b", "-n", "lvm-000", GROUP]);
        assert.equal(made.exitCode, 0, made.stderr);
        await assert.rejects(create(driver, 0), { code: "already-exists" });
        if (isSeen) await driver.list(context);
        await driver.volumeRemove("lvm-000", context);
        assert.ok(model.names().includes("lvm-000"));
        await driver.list(context);
        const asked = driver.volumeRemove("lvm-000", context);
        await assert.rejects(asked, { code: "failed-precondition", message: /remove it by hand/ });
      });
  });
});

describe("lvm-iscsi, thick volumes whose snapshots others have made", { skip }, () => {
  const byHand = (model: VolumeGroupModel, origin: string): void => {
    const made = model.run("lvcreate", ["-s", `${GROUP}/${origin}`, "-n", "backup"]);
    assert.equal(made.exitCode, 0, made.stderr);
  };
  const named = {
    code: "failed-precondition",
    message: new RegExp(`${GROUP}/backup.*lvremove ${GROUP}/backup`),
  };

  it("they stay, and are named, whether or not the volume has some of ours", async () => {
    for (const hasOurs of [false, true])
      await withDriver({ wipe: "zero" }, async (driver, model) => {
        const volume = await create(driver, 0);
        const snapshot = snapshotOf(driver, 0, volume);
        if (hasOurs) await driver.snapshots?.snapshotCreate(volume, snapshot, context);
        byHand(model, volume.id);
        await assert.rejects(driver.volumeRemove(volume.id, context), named);
        assert.ok(model.names().includes("backup"));
        assert.deepEqual(
          (await driver.list(context)).volumes.map(({ id, broken }) => [id, broken]),
          [[volume.id, undefined]],
          "the volume is left as it was",
        );
        assert.ok(!model.lines.some((line) => line.startsWith("blkdiscard")), "nothing was wiped");
        model.run("lvremove", ["-y", `${GROUP}/backup`]);
        await driver.volumeRemove(volume.id, context);
        if (hasOurs) await driver.snapshots?.snapshotRemove(snapshot.id, context);
        await untilGone(model);
        assert.deepEqual(model.names(), ["pool"]);
      });
  });
});

describe("lvm-iscsi, thick volumes that were removed before their snapshots", { skip }, () => {
  /** A service with a removed volume and its only snapshot. */
  async function removed(driver: StorageDriver) {
    const volume = await create(driver, 0);
    const snapshot = snapshotOf(driver, 0, volume);
    await driver.snapshots?.snapshotCreate(volume, snapshot, context);
    await driver.volumeRemove(volume.id, context);
    return { volume, snapshot };
  }

  it("go with their last snapshot", async () => {
    await withDriver({}, async (driver, model) => {
      const { volume, snapshot } = await removed(driver);
      assert.ok(model.isKeptFor(volume.id));
      await driver.snapshots?.snapshotRemove(snapshot.id, context);
      assert.deepEqual(model.names(), ["pool"]);
    });
  });

  it("go at the next start or the next removal where that failed, and the snapshot is gone", async () => {
    await withDriver({}, async (driver, model) => {
      const { volume, snapshot } = await removed(driver);
      model.refuse = new RegExp(`^lvremove -y ${GROUP}/${volume.id}$`);
      await driver.snapshots?.snapshotRemove(snapshot.id, context);
      assert.deepEqual(model.over(), [volume.id]);
      const second = await driver.volumeCreate(volumeOf(driver, 1), context);
      model.refuse = undefined;
      await driver.volumeRemove(second.id, context);
      assert.deepEqual(model.names(), ["pool"]);
    });
    await withDriver({}, async (driver, model) => {
      const { volume, snapshot } = await removed(driver);
      // As after a crash between the two.
      model.run("lvremove", ["-y", `${GROUP}/${snapshot.id}`]);
      model.run("lvcreate", ["-L", "8b", "--addtag", REMOVED, "-n", "other", GROUP]);
      assert.deepEqual(model.over(), [volume.id, "other"]);
      await (await open(model, {})).close();
      assert.deepEqual(model.names(), ["pool", "other"], "what is not this service's stays");
    });
  });

  it("go in the background where they are wiped with zeros", async () => {
    await withDriver({ wipe: "zero" }, async (driver, model) => {
      const { volume, snapshot } = await removed(driver);
      model.run("lvremove", ["-y", `${GROUP}/${snapshot.id}`]);
      model.lines.length = 0;
      const again = await open(model, { wipe: "zero" });
      await untilGone(model);
      await again.close();
      assert.deepEqual(model.names(), ["pool"]);
      assert.match(doneTo(model, volume.id).at(-2) ?? "", /^blkdiscard --zeroout/);
    });
  });
});
