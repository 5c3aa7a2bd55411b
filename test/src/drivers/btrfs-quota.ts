/** Cases of btrfs with a quota that is on. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { VolumeRecord } from "@libstorage/server";
import { GIB } from "@libstorage/model";
import { contextOf } from "../conformance/fixture.js";
import type { Case } from "../conformance/fixture.js";
import { run } from "../conformance/tree.js";
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
