import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { wireJson } from "@libstorage/model";
import { encode } from "./encode.js";

const volume = (id: string): object =>
  Object.freeze({ name: `<${id}> & "co"\n`, id, type: "", fields: { a: "1", b: "2" } });

describe("encode", () => {
  it("puts lists together to the same bytes as one piece", () => {
    const one = Object.freeze({ "vfs-000": volume("vfs-000"), "vfs-001": volume("vfs-001") });
    const all = Object.freeze({ empty: Object.freeze({}), one });
    assert.equal(encode(one, 1).body.toString(), wireJson(one));
    assert.equal(encode(all, 2).body.toString(), wireJson(all));
    assert.equal(encode({ ...all }, 2).body.toString(), wireJson(all));
    assert.equal(encode({}, 1).body.toString(), "{}");
    assert.equal(encode(null, 0).body.toString(), "null");
  });
  it("keeps the bytes of what cannot change, and only of that", () => {
    const frozen = volume("vfs-002");
    assert.equal(encode(frozen, 0), encode(frozen, 0));
    const open = { name: "a" };
    const before = encode(open, 0).body.toString();
    open.name = "b";
    assert.notEqual(encode(open, 0).body.toString(), before);
  });
});
