import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isLvmName, namesWith } from "./names.js";

describe("names of logical volumes", () => {
  it("are those that LVM allows", () => {
    for (const name of ["vg0", "a", "A+b_c.d-e", "x".repeat(100)]) assert.ok(isLvmName(name), name);
    const bad = ["", "-a", ".", "..", "a/b", "a b", "ä", "x".repeat(101), "snapshot1", "pvmove0"];
    for (const name of [...bad, "a_tdata", "pool_tmeta", "a_rimage_0", "lvol0_pmspare"])
      assert.ok(!isLvmName(name), name);
  });

  it("tell what they are, and those of another prefix are nothing", () => {
    const names = namesWith("a+b.");
    const { ids } = names;
    assert.equal(names.kindOf(ids.volumeID(7)), "volume");
    assert.equal(names.kindOf(ids.snapshotID(12, ids.volumeID(7))), "snapshot");
    for (const id of [
      "a+b.",
      "a+b.00",
      "aab.000",
      "a+bx000",
      "a+b.000x",
      "../a+b.000",
      "a+b.000-1",
    ])
      assert.equal(names.kindOf(id), undefined, id);
    assert.equal(names.kindOf(names.stillOf(ids.volumeID(7))), undefined);
    assert.ok(isLvmName(names.stillOf(ids.snapshotID(123_456, ids.volumeID(7)))));
  });
});
