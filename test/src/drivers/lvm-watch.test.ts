/** lvm-iscsi on a group in memory: what changes without anybody changing the group. */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { DRIVERS } from "@libstorage/server";
import type { Change } from "@libstorage/server";
import { contextOf, snapshotOf, volumeOf } from "../conformance/fixture.js";
import { openOver } from "./lvm-fake.js";
import { VolumeGroupModel } from "./lvm-model.js";

const context = contextOf();
const isRoot = process.getuid?.() === 0;
const skip = isRoot ? false : "only root may lock a part of a volume group, in /run/lock";
const GROUP = `watch${process.pid}`;
const WATCH_SECONDS = 0.2;

describe("lvm-iscsi, what happens by itself", { skip }, () => {
  after(() => rm(`/run/lock/libstorage/lvm-iscsi/${GROUP}.lvm-`, { recursive: true, force: true }));

  it("a snapshot that overflows and a disk that goes are noticed, each once", async () => {
    const model = new VolumeGroupModel(GROUP, "pool");
    const keys = { volumeGroup: GROUP, defaultSize: "8M", watchSeconds: WATCH_SECONDS };
    const config = v.parse(DRIVERS["lvm-iscsi"].config, keys) as object;
    const driver = await openOver(model, config, context);
    const volume = await driver.volumeCreate(volumeOf(driver, 0), context);
    const snapshot = snapshotOf(driver, 0, volume);
    await driver.snapshots?.snapshotCreate(volume, snapshot, context);
    const seen: Change[] = [];
    const stop = driver.watch?.((change) => seen.push(change));
    const nextChange = async (what: string): Promise<Change> => {
      for (let left = 200; left > 0 && seen.length === 0; left -= 1) await sleep(50);
      const [change] = seen.splice(0);
      assert.ok(change !== undefined, what);
      // As the core does, who is told.
      for (const id of change.volumeIDs ?? []) await driver.volumeInspect(id, context);
      for (const id of change.snapshotIDs ?? []) await driver.snapshotInspect(id, context);
      return change;
    };
    // From the second look on all that has not changed is passed over.
    await sleep(3 * WATCH_SECONDS * 1000);
    assert.deepEqual(seen, []);
    model.overflowed.add(snapshot.id);
    assert.deepEqual(await nextChange("the snapshot"), {
      volumeIDs: [],
      snapshotIDs: [snapshot.id],
    });
    assert.notEqual((await driver.snapshotInspect(snapshot.id, context))?.broken, undefined);
    model.missingDisks = 1;
    assert.deepEqual(await nextChange("the disk"), {
      volumeIDs: [volume.id],
      snapshotIDs: [snapshot.id],
    });
    assert.notEqual((await driver.volumeInspect(volume.id, context))?.broken, undefined);
    model.lines.length = 0;
    await sleep(8 * WATCH_SECONDS * 1000);
    assert.deepEqual(seen, []);
    assert.ok(!model.lines.some((line) => line.startsWith("lvs")), "nothing can overflow any more");
    stop?.();
    await driver.close();
  });
});
