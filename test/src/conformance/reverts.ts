/** Volumes that go back to a snapshot. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { SnapshotRecord, VolumeRecord } from "@libstorage/server";
import {
  contextOf,
  needsDurability,
  needsFolders,
  needsReverts,
  OTHER_SIZE,
  snapshotOf,
} from "./fixture.js";
import type { Case, Fixture } from "./fixture.js";

function revert(fixture: Fixture, volume: VolumeRecord, snapshot: SnapshotRecord) {
  return fixture.reverts.volumeRevert(volume, snapshot, contextOf());
}

const CASES: readonly Case[] = [
  {
    title: "a volume that goes back to a snapshot keeps all but its data",
    async run(fixture) {
      const volume = await fixture.create(0, { name: "web", type: "gold", iops: 3 });
      const snapshot = await fixture.snapshot(0, volume);
      const reverted = await revert(fixture, volume, snapshot);
      assert.deepEqual(reverted, volume);
      assert.deepEqual(await fixture.inspect(volume.id), volume);
    },
  },
  {
    title: "a revert keeps every snapshot, later ones too",
    async run(fixture) {
      const volume = await fixture.create(0);
      const first = await fixture.snapshot(0, volume);
      const second = await fixture.snapshot(1, volume);
      await revert(fixture, volume, first);
      assert.deepEqual(await fixture.list(), { volumes: [volume], snapshots: [first, second] });
    },
  },
  {
    title: "a revert once more is the same",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      const once = await revert(fixture, volume, snapshot);
      assert.deepEqual(await revert(fixture, once, snapshot), once);
      assert.deepEqual(await fixture.list(), { volumes: [once], snapshots: [snapshot] });
    },
  },
  {
    title: "a volume that has grown since keeps its size",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      const grown =
        (await fixture.driver.volumeExpand?.(volume, OTHER_SIZE, contextOf())) ?? volume;
      const reverted = await revert(fixture, grown, snapshot);
      assert.equal(reverted.sizeBytes, grown.sizeBytes);
      assert.deepEqual(await fixture.inspect(volume.id), reverted);
    },
  },
  {
    title: "what was made from a snapshot stays when its volume goes back",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      const wanted = fixture.volume(1);
      const made = await fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf());
      await revert(fixture, volume, snapshot);
      assert.deepEqual((await fixture.list()).volumes, [volume, made]);
    },
  },
  {
    title: "a reverted volume is attached, snapshotted and reverted as any other",
    async run(fixture) {
      const volume = await fixture.create(0);
      const first = await fixture.snapshot(0, volume);
      const reverted = await revert(fixture, volume, first);
      const second = await fixture.snapshot(1, reverted);
      const again = await revert(fixture, reverted, second);
      const held = await fixture.attach(again, "host-a");
      assert.equal(held.attachments.length, 1);
      await fixture.detach(held, "host-a");
      await fixture.snapshots.snapshotRemove(first.id, contextOf());
      assert.deepEqual((await fixture.list()).snapshots, [second]);
    },
  },
  {
    title: "a reverted volume is removed, and its snapshots stay",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      await revert(fixture, volume, snapshot);
      await fixture.driver.volumeRemove(volume.id, contextOf());
      assert.deepEqual(await fixture.list(), { volumes: [], snapshots: [snapshot] });
    },
  },
  {
    title: "a revert to an unknown snapshot is refused and changes nothing",
    async run(fixture) {
      const volume = await fixture.create(0);
      const unknown = snapshotOf(fixture.driver, 5, volume);
      await assert.rejects(revert(fixture, volume, unknown), { code: "not-found" });
      assert.deepEqual(await fixture.list(), { volumes: [volume], snapshots: [] });
    },
  },
  {
    title: "a revert of an unknown volume is refused and makes none",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      await fixture.driver.volumeRemove(volume.id, contextOf());
      await assert.rejects(revert(fixture, volume, snapshot), { code: "not-found" });
      assert.deepEqual((await fixture.list()).volumes, []);
    },
  },
  {
    title: "a revert that is cancelled before it begins changes nothing",
    async run(fixture) {
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      const context = contextOf({ signal: AbortSignal.abort() });
      await assert.rejects(fixture.reverts.volumeRevert(volume, snapshot, context), {
        code: "cancelled",
      });
      assert.deepEqual(await fixture.list(), { volumes: [volume], snapshots: [snapshot] });
    },
  },
  {
    title: "settling a revert that never was changes nothing",
    async run(fixture) {
      const volume = await fixture.create(0);
      await fixture.reverts.volumeRevertSettle(volume.id, contextOf());
      await fixture.reverts.volumeRevertSettle(fixture.volume(9).id, contextOf());
      assert.deepEqual((await fixture.list()).volumes, [volume]);
    },
  },
];

function fileIn({ source }: VolumeRecord, name: string): string {
  assert.ok(source.kind === "directory");
  return join(source.path, name);
}

const DATA: Case = {
  title: "the data go back, and forth again where there is a later snapshot",
  unless: (driver, harness) => needsReverts(driver) ?? needsFolders(driver, harness),
  async run(fixture) {
    const volume = await fixture.create(0);
    const file = (name: string): string => fileIn(volume, name);
    writeFileSync(file("kept"), "first");
    writeFileSync(file("removed"), "first");
    const first = await fixture.snapshot(0, volume);
    writeFileSync(file("kept"), "second");
    rmSync(file("removed"));
    writeFileSync(file("added"), "second");
    const second = await fixture.snapshot(1, volume);
    await revert(fixture, volume, first);
    assert.equal(readFileSync(file("kept"), "utf8"), "first");
    assert.equal(readFileSync(file("removed"), "utf8"), "first");
    assert.ok(!existsSync(file("added")), "what was added since is gone");
    writeFileSync(file("kept"), "third");
    await revert(fixture, volume, second);
    assert.equal(readFileSync(file("kept"), "utf8"), "second");
    assert.ok(!existsSync(file("removed")));
    await revert(fixture, volume, first);
    assert.equal(readFileSync(file("kept"), "utf8"), "first", "the snapshot was written to");
  },
};

const DURABLE: Case = {
  title: "a reverted volume is the same after opening again",
  unless: (driver, harness) => needsReverts(driver) ?? needsDurability(driver, harness),
  async run(fixture) {
    const volume = await fixture.create(0, { name: "web" });
    const snapshot = await fixture.snapshot(0, volume);
    await revert(fixture, volume, snapshot);
    const before = await fixture.list();
    await fixture.reopen();
    assert.deepEqual(await fixture.list(), before);
  },
};

export const REVERT_CASES: readonly Case[] = [
  ...CASES.map((one) => ({ ...one, unless: needsReverts })),
  DATA,
  DURABLE,
];
