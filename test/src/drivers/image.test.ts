import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { dirname } from "node:path";
import { describe, it } from "node:test";
import { testDriver } from "../conformance.js";
import { Fixture, contextOf } from "../conformance/fixture.js";
import { loopMissing, makeLoop } from "../loop.js";
import type { LoopOptions } from "../loop.js";
import { btrfsMissing, makeBtrfs } from "./btrfs-loop.js";
import { IMAGE_CASES } from "./image-cases.js";
import { CUT_CASES } from "./image-cuts.js";
import { checkPattern, diskOf, imageHarness, imagePlace, writePattern } from "./image-place.js";

const MIB = 1024 ** 2;

const SEE_RAW = "where an operation is cut is the same as for qcow2";

testDriver("image, raw", imageHarness({ format: "raw" }, SEE_RAW), IMAGE_CASES);
testDriver("image, qcow2", imageHarness({ format: "qcow2" }, true), [...IMAGE_CASES, ...CUT_CASES]);
const SMALL: LoopOptions = { type: "ext4", sizeMiB: 48 };

describe("image on a file system that is full", { skip: loopMissing(SMALL) }, () => {
  it("what does not fit is refused, the original stays, and nothing is left", async () => {
    const loop = makeLoop(SMALL);
    assert.ok(typeof loop !== "string", "it could be made a moment ago");
    try {
      const harness = imageHarness({ format: "qcow2" }, true);
      const place = () => imagePlace({ format: "qcow2" }, loop.folder);
      const fixture = await Fixture.open({ ...harness, place });
      const volume = await fixture.create(0, { sizeBytes: 64 * MIB });
      for (let mib = 0; mib < 24; mib += 1) writePattern(volume, 0x77, mib);
      const full = { code: "resource-exhausted", message: /file system is full/ };
      const convert = fixture.driver.images?.convert(volume, "raw", contextOf());
      await assert.rejects(convert ?? Promise.resolve(), full);
      await assert.rejects(fixture.copyVolume(volume, fixture.volume(1), contextOf()), full);
      await assert.rejects(fixture.snapshot(0, volume), full);
      assert.deepEqual(await fixture.list(), { volumes: [volume], snapshots: [] });
      for (let mib = 0; mib < 24; mib += 1) checkPattern(volume, 0x77, mib);
      const { path } = diskOf(volume);
      assert.deepEqual(readdirSync(dirname(path)), ["disk.qcow2"]);
      await fixture.empty();
      await fixture.place.close();
    } finally {
      loop.remove();
    }
  });
});

/** How much of a file is its own, and how much it shares with others, in bytes. @see btrfs-filesystem(8), du */
function usageOf(path: string): { readonly own: number; readonly shared: number } {
  spawnSync("sync", ["-f", path]);
  const { stdout } = spawnSync("btrfs", ["filesystem", "du", "--raw", path], { encoding: "utf8" });
  const [total = "", own = ""] = stdout.trim().split("\n").at(-1)?.trim().split(/\s+/) ?? [];
  assert.match(`${total} ${own}`, /^\d+ \d+$/, stdout);
  return { own: Number(own), shared: Number(total) - Number(own) };
}

describe("image on a file system that shares blocks", { skip: btrfsMissing() }, () => {
  for (const format of ["raw", "qcow2"] as const)
    it(`a copy and a snapshot of a ${format} image share its blocks until they are written`, async () => {
      const loop = makeBtrfs();
      try {
        const harness = imageHarness({ format }, true);
        const place = () => imagePlace({ format }, loop.folder);
        const fixture = await Fixture.open({ ...harness, place });
        const volume = await fixture.create(0, { sizeBytes: 64 * MIB });
        for (let mib = 0; mib < 16; mib += 1) writePattern(volume, 0x31, mib);
        const before = usageOf(diskOf(volume).path);
        assert.ok(before.own >= 16 * MIB && before.shared === 0, JSON.stringify(before));
        const copy = await fixture.copyVolume(
          volume,
          fixture.volume(1, { sizeBytes: volume.sizeBytes }),
          contextOf(),
        );
        const snapshot = await fixture.snapshot(0, volume);
        for (const one of [volume, copy, snapshot]) {
          const { own, shared } = usageOf(diskOf(one).path);
          assert.ok(shared >= 16 * MIB && own < MIB, `${one.id} has ${own} of its own`);
        }
        writePattern(copy, 0x32, 3);
        assert.ok(usageOf(diskOf(copy).path).own >= MIB, "what was written is its own");
        for (const one of [volume, snapshot]) checkPattern(one, 0x31, 3);
        checkPattern(copy, 0x32, 3);
        checkPattern(copy, 0x31, 4);
        await fixture.empty();
        await fixture.place.close();
      } finally {
        loop.remove();
      }
    });
});
