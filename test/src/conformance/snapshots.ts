/** Snapshots: made, copied, turned into volumes, removed. */
import assert from "node:assert/strict";
import {
  contextOf,
  eachOf,
  needsDurability,
  needsSnapshotCopy,
  needsSnapshots,
  snapshotOf,
} from "./fixture.js";
import type { Case } from "./fixture.js";

const PLAIN: readonly Case[] = [
  {
    title: "a snapshot is named, and knows its volume",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume, { name: "before ../ upgrade" });
      assert.equal(snapshot.name, "before ../ upgrade");
      assert.equal(snapshot.volumeID, volume.id);
      assert.equal(snapshot.broken, undefined);
    },
  },
  {
    title: "a snapshot is listed and inspected as it was answered",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      assert.deepEqual(await fixture.list(), { volumes: [volume], snapshots: [snapshot] });
      const found = await fixture.driver.snapshotInspect(snapshot.id, contextOf());
      assert.deepEqual(found, snapshot);
    },
  },
  {
    title: "a snapshot remembers what its volume was",
    async run(fixture) {
      const origin = { type: "gold", availabilityZone: "z1", iops: 9 };
      const snapshot = await fixture.snapshot(0, await fixture.create(0), { origin });
      assert.deepEqual(snapshot.origin, origin);
      assert.deepEqual((await fixture.list()).snapshots[0]?.origin, origin);
    },
  },
  {
    title: "a snapshot's id is no volume's, and the other way round",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      assert.equal(await fixture.inspect(snapshot.id), undefined);
      assert.equal(await fixture.driver.snapshotInspect(volume.id, contextOf()), undefined);
    },
  },
  {
    title: "a snapshot leaves its volume's record alone",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      await fixture.snapshot(0, held);
      assert.deepEqual(await fixture.inspect(held.id), held);
    },
  },
  {
    title: "the same snapshot once more is the same",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      assert.deepEqual(await fixture.snapshot(0, volume), snapshot);
      assert.equal((await fixture.list()).snapshots.length, 1);
    },
  },
  {
    title: "a snapshot's id that is taken is refused",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      await assert.rejects(fixture.snapshot(0, volume, { name: "other" }), {
        code: "already-exists",
      });
      assert.deepEqual((await fixture.list()).snapshots, [snapshot]);
    },
  },
  {
    title: "a snapshot of an unknown volume is refused and makes none",
    async run(fixture) {
      await assert.rejects(fixture.snapshot(0, fixture.volume(5)), { code: "not-found" });
      assert.deepEqual((await fixture.list()).snapshots, []);
    },
  },
  {
    title: "a snapshot that is cancelled before it begins makes nothing",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = snapshotOf(fixture.driver, 0, volume);
      const context = contextOf({ signal: AbortSignal.abort() });
      await assert.rejects(fixture.snapshots.snapshotCreate(volume, snapshot, context), {
        code: "cancelled",
      });
      assert.deepEqual((await fixture.list()).snapshots, []);
    },
  },
  {
    title: "a removed snapshot is gone, and its volume stays",
    async run(fixture) {
      const volume = await fixture.create(0);
      const { id } = await fixture.snapshot(0, volume);
      await fixture.snapshots.snapshotRemove(id, contextOf());
      assert.deepEqual(await fixture.list(), { volumes: [volume], snapshots: [] });
      assert.equal(await fixture.driver.snapshotInspect(id, contextOf()), undefined);
    },
  },
  {
    title: "removing a snapshot once more is fine",
    async run(fixture) {
      const { id } = await fixture.snapshot(0, await fixture.create(0));
      await fixture.snapshots.snapshotRemove(id, contextOf());
      await fixture.snapshots.snapshotRemove(id, contextOf());
    },
  },
  {
    title: "removing a snapshot that never was is fine",
    async run(fixture) {
      const { id } = snapshotOf(fixture.driver, 9, fixture.volume(9));
      await fixture.snapshots.snapshotRemove(id, contextOf());
    },
  },
  {
    title: "a snapshot outlives its volume",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      await fixture.driver.volumeRemove(volume.id, contextOf());
      assert.deepEqual(await fixture.list(), { volumes: [], snapshots: [snapshot] });
    },
  },
  {
    title: "a volume is made from a snapshot as it was asked for",
    async run(fixture) {
      const snapshot = await fixture.snapshot(0, await fixture.create(0));
      const wanted = fixture.volume(1, { type: "gold", iops: 4 });
      const made = await fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf());
      assert.equal(made.id, wanted.id);
      assert.equal(made.name, wanted.name);
      assert.equal(made.type, "gold");
      assert.deepEqual(await fixture.inspect(made.id), made);
    },
  },
  {
    title: "a volume from a snapshot once more is the same",
    async run(fixture) {
      const snapshot = await fixture.snapshot(0, await fixture.create(0));
      const make = () =>
        fixture.snapshots.volumeCreateFromSnapshot(snapshot, fixture.volume(1), contextOf());
      assert.deepEqual(await make(), await make());
      assert.equal((await fixture.list()).volumes.length, 2);
    },
  },
  {
    title: "a volume is made from the snapshot of a removed volume",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      await fixture.driver.volumeRemove(volume.id, contextOf());
      await fixture.snapshots.volumeCreateFromSnapshot(snapshot, fixture.volume(1), contextOf());
      assert.equal((await fixture.list()).volumes.length, 1);
    },
  },
  {
    title: "a volume outlives the snapshot it was made from",
    async run(fixture) {
      const snapshot = await fixture.snapshot(0, await fixture.create(0));
      const wanted = fixture.volume(1);
      const made = await fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf());
      await fixture.snapshots.snapshotRemove(snapshot.id, contextOf());
      assert.deepEqual(await fixture.inspect(made.id), made);
    },
  },
  {
    title: "a volume from an unknown snapshot is refused and not made",
    async run(fixture) {
      const snapshot = snapshotOf(fixture.driver, 5, fixture.volume(5));
      const wanted = fixture.volume(1);
      const make = fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf());
      await assert.rejects(make, { code: "not-found" });
      assert.deepEqual((await fixture.list()).volumes, []);
    },
  },
  {
    title: "a volume from a snapshot at an id that is taken is refused",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      const wanted = fixture.volume(0, { name: "other" });
      const make = fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf());
      await assert.rejects(make, { code: "already-exists" });
      assert.deepEqual((await fixture.list()).volumes, [volume]);
    },
  },
  {
    title: "eight snapshots of one volume at once are eight",
    async run(fixture) {
      const volume = await fixture.create(0);
      await eachOf(8, (number) => fixture.snapshot(number, volume));
      assert.equal((await fixture.list()).snapshots.length, 8);
    },
  },
];

const COPIES: readonly Case[] = [
  {
    title: "a snapshot is copied under a new name and id",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      const wanted = snapshotOf(fixture.driver, 1, volume, { name: "second" });
      const copy = await fixture.copySnapshot(snapshot, wanted, contextOf());
      assert.equal(copy.name, "second");
      assert.equal(copy.volumeID, volume.id);
      assert.deepEqual((await fixture.list()).snapshots, [snapshot, copy]);
    },
  },
  {
    title: "a copy of a snapshot outlives it and can be copied",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      const second = snapshotOf(fixture.driver, 1, volume);
      const copy = await fixture.copySnapshot(snapshot, second, contextOf());
      await fixture.snapshots.snapshotRemove(snapshot.id, contextOf());
      const third = snapshotOf(fixture.driver, 2, volume);
      await fixture.copySnapshot(copy, third, contextOf());
      assert.equal((await fixture.list()).snapshots.length, 2);
    },
  },
  {
    title: "a copy of an unknown snapshot is refused and not made",
    async run(fixture) {
      const unknown = snapshotOf(fixture.driver, 5, fixture.volume(5));
      const wanted = snapshotOf(fixture.driver, 1, fixture.volume(5));
      await assert.rejects(fixture.copySnapshot(unknown, wanted, contextOf()), {
        code: "not-found",
      });
      assert.deepEqual((await fixture.list()).snapshots, []);
    },
  },
];

const DURABLE: Case = {
  title: "snapshots are the same after opening again",
  unless: (driver, harness) => needsSnapshots(driver) ?? needsDurability(driver, harness),
  async run(fixture) {
    const volume = await fixture.create(0);
    await fixture.snapshot(0, volume, { fields: { why: "backup" }, description: "d" });
    await fixture.snapshot(1, volume, { encrypted: true });
    const before = await fixture.list();
    await fixture.reopen();
    assert.deepEqual(await fixture.list(), before);
    assert.deepEqual(before.snapshots[0]?.fields, { why: "backup" });
  },
};

export const SNAPSHOT_CASES: readonly Case[] = [
  ...PLAIN.map((one) => ({ ...one, unless: needsSnapshots })),
  ...COPIES.map((one) => ({ ...one, unless: needsSnapshotCopy })),
  DURABLE,
];
