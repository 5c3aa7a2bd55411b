import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { LvmConfig } from "./config.js";
import { grown, limitsOf, mostBytesIn, partsAt, shareOfInterval, wordsFor } from "./pool-limits.js";

const GIB = 1024 ** 3;
const EXTENT = 4 * 1024 ** 2;

const limits = (pool: object) => limitsOf(v.parse(LvmConfig, { volumeGroup: "vg0", pool }).pool);
const state = (dataPercent: number, metadataPercent: number) => ({
  metadataBytes: GIB,
  dataPercent,
  metadataPercent,
  isZeroing: true,
});

describe("limits of a thin pool", () => {
  it("what is said of one part counts before what is said of both", () => {
    const { data, metadata } = limits({ warnAt: 50, metadata: { warnAt: 30, suspendAt: 95 } });
    assert.deepEqual([data.warnAt, metadata.warnAt], [50, 30]);
    assert.deepEqual([data.suspendAt, metadata.suspendAt], [97, 95]);
  });
  it("a part is at its limit by its own fill", () => {
    const own = limits({ metadata: { refuseAt: 40 } });
    assert.deepEqual(partsAt(state(91, 39), own, "refuseAt"), []);
    assert.deepEqual(partsAt(state(91, 40), own, "refuseAt"), ["metadata"]);
    assert.deepEqual(partsAt(state(92, 40), own, "refuseAt"), ["data", "metadata"]);
    assert.equal(
      wordsFor(["metadata"], state(91, 40), own),
      "40 % of its metadata are used, and 40 % is the limit",
    );
  });
  it("a part grows by its step, to whole extents, and no further than it may", () => {
    const { data, metadata } = limits({ extendBy: "20%", extendTo: "11G" });
    assert.equal(grown(5 * GIB + 1, data, EXTENT) % EXTENT, 0);
    assert.equal(grown(10 * GIB, data, EXTENT), 11 * GIB);
    assert.equal(grown(12 * GIB, data, EXTENT), 12 * GIB, "never smaller");
    assert.equal(grown(16 * GIB, metadata, EXTENT), 16 * GIB, "the kernel uses no more");
    assert.equal(grown(GIB, limits({}).data, EXTENT), GIB, "nothing says how far");
    assert.equal(grown(GIB, limits({ data: { extendBy: "1G" } }).metadata, EXTENT), GIB);
  });
  it("what could never be in the pool is known", () => {
    assert.equal(mostBytesIn(GIB, limits({}).data), GIB);
    assert.equal(mostBytesIn(GIB, limits({ extendBy: "1G" }).data), undefined);
    assert.equal(mostBytesIn(GIB, limits({ extendBy: "1G", extendTo: "5G" }).data), 5 * GIB);
  });
  it("it is looked at the more often, the less room the fuller part has", () => {
    const own = limits({
      warnAt: 80,
      suspendAt: 100,
      metadata: { warnAt: 20, suspendAt: 60, refuseAt: 50 },
    });
    assert.equal(shareOfInterval(state(10, 10), own), 1);
    assert.equal(shareOfInterval(state(90, 10), own), 0.5);
    assert.equal(shareOfInterval(state(90, 50), own), 0.25);
    assert.equal(shareOfInterval(state(10, 99), own), 0);
  });
});
