import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { LvmConfig } from "./config.js";
import { grown, limitsOf, mostBytesIn, partsAt, waitMs, wordsFor } from "./pool-limits.js";

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
});

describe("when a thin pool is looked at next", () => {
  const WHOLE = 10_000;
  const TIB = 1024 * GIB;
  const own = limits({
    warnAt: 80,
    suspendAt: 100,
    metadata: { warnAt: 20, suspendAt: 60, refuseAt: 50 },
  });
  const look = (atMs: number, dataPercent: number, metadataPercent = 1, sizeBytes = 100 * TIB) => ({
    atMs,
    sizeBytes,
    state: state(dataPercent, metadataPercent),
  });
  const wait = (now: ReturnType<typeof look>, before?: ReturnType<typeof look>): number =>
    Math.round(waitMs(now, before, own, WHOLE));

  it("the sooner, the less room the fuller part has", () => {
    const before = look(0, 90, 50);
    assert.equal(wait(look(WHOLE, 10, 10), before), WHOLE);
    assert.equal(wait(look(WHOLE, 90, 10), before), WHOLE / 2);
    assert.equal(wait(look(WHOLE, 90, 50), before), WHOLE / 4);
    assert.equal(wait(look(WHOLE, 10, 99), before), 500, "suspended");
  });
  it("within a third of the time that is left, as fast as each part fills", () => {
    // A tenth of the room in 10 s leaves 90 s; half of it leaves 10 s.
    assert.equal(wait(look(WHOLE, 55), look(0, 50)), WHOLE);
    assert.equal(wait(look(WHOLE, 75), look(0, 50)), 3333);
    assert.equal(wait(look(1000, 75), look(0, 50)), 333);
    assert.equal(wait(look(WHOLE, 1, 15), look(0, 1, 0)), WHOLE);
    assert.equal(wait(look(WHOLE, 1, 15), look(WHOLE - 1000, 1, 0)), 1000);
    assert.equal(wait(look(10, 75), look(0, 50)), 100, "not without end");
  });
  it("before it could be full, whatever was written so far", () => {
    // 10 GB of room at 2 GB a second.
    const small = (atMs: number, percent = 50) => look(atMs, percent, 1, 20e9);
    assert.equal(wait(small(0)), 5000, "nothing is known yet");
    assert.equal(wait(small(WHOLE), small(0)), 5000, "nothing was written");
    assert.equal(wait(small(WHOLE), small(0, 60)), 5000, "something was given back");
    assert.equal(wait(look(0, 50, 1, 20e6)), 100);
    assert.equal(wait(look(WHOLE, 50, 1, 20e6), look(0, 50, 1, 20e6)), 500, "an idle one");
    // 590 of 1024 MiB at 20 MB a second are 31 s, and 10 of them less than one.
    assert.equal(wait(look(0, 1, 1)), WHOLE);
    assert.equal(wait(look(0, 1, 59)), 500, "the part of the interval that is left");
    const steep = limits({ metadata: { warnAt: 60, suspendAt: 60, refuseAt: 50 } });
    assert.equal(Math.round(waitMs(look(0, 1, 59), undefined, steep, WHOLE)), 537);
  });
  it("never later than it is told", () => {
    assert.equal(waitMs(look(0, 10), undefined, own, 200), 200);
    assert.equal(waitMs(look(0, 100), undefined, own, 200), 200);
  });
});
