import assert from "node:assert/strict";
import { it } from "node:test";
import { pathPart } from "./path-part.js";

it("makes one part of a path of any name", () => {
  assert.equal(pathPart("web-1.x"), "web-1.x");
  assert.equal(pathPart("a/b"), "a%2Fb");
  assert.equal(pathPart(".."), "%2E%2E");
  assert.equal(pathPart("."), "%2E");
  assert.equal(pathPart("ü b"), "%C3%BC%20b");
  assert.throws(() => pathPart(""), { code: "invalid-argument" });
  assert.throws(() => pathPart("ü".repeat(200)), { code: "invalid-argument" });
});
