import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { dirname } from "node:path";
import { describe, it } from "node:test";
import { testDriver } from "../conformance.js";
import { Fixture, contextOf } from "../conformance/fixture.js";
import { loopMissing, makeLoop } from "../loop.js";
import type { LoopOptions } from "../loop.js";
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
