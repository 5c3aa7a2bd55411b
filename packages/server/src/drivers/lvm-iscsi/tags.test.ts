import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { recordIn, tagsOf, UNWIPED } from "./tags.js";

/** What LVM allows in a tag. @see lvm(8), TAGS */
const TAG = /^[A-Za-z0-9_+.\-/=!:&#]{1,1024}$/;

const RECORD = {
  id: "lvm-000",
  name: "Grüße, 世界 🌍 <&> \"\\ '",
  fields: { a: "x".repeat(3000) },
};

describe("records in tags", () => {
  it("come back as they were, in tags that LVM allows", () => {
    const tags = tagsOf("vol", RECORD);
    assert.ok(tags.length > 1);
    for (const tag of tags) assert.match(tag, TAG);
    assert.deepEqual(recordIn(tags, "vol"), RECORD);
    assert.deepEqual(recordIn(tags.toReversed(), "vol"), RECORD);
  });

  it("stand beside tags of others", () => {
    const tags = ["backup", ...tagsOf("vol", RECORD), UNWIPED, "libs"];
    assert.deepEqual(recordIn(tags, "vol"), RECORD);
    assert.equal(recordIn(["backup"], "vol"), undefined);
  });

  it("that were edited say what is wrong", () => {
    const tags = tagsOf("vol", RECORD);
    const [first = "", ...rest] = tags;
    assert.throws(() => recordIn(rest, "vol"), /of the .* tags of its record are there/);
    assert.throws(() => recordIn([`${first.slice(0, -1)}A`, ...rest], "vol"), /digest/);
    assert.throws(() => recordIn([...tags, ...tagsOf("vol", {})], "vol"), /several records/);
    assert.throws(() => recordIn(["libstorage:other"], "vol"), /not one of ours/);
    assert.throws(() => recordIn(tagsOf("snap", RECORD), "vol"), /another kind/);
  });

  it("that are too long are refused", () => {
    const long = { fields: { a: "x".repeat(40_000) } };
    assert.throws(() => tagsOf("vol", long), { code: "resource-exhausted" });
  });
});
