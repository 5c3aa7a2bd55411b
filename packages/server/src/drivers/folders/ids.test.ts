import assert from "node:assert/strict";
import { it } from "node:test";
import { checkId, folderIDs, isId } from "./ids.js";

it("ids are plain file names", () => {
  for (const id of ["vfs-000", "vfs-1234", "vfs-000-000", "my.volume_1", "a", "x".repeat(128)])
    assert.equal(checkId(id), id);
  const bad = ["", ".", "..", "a/b", "../a", "a b", "a\0", "ä", "-a", "_a", ".a", "a.json", "a\n"];
  for (const id of [...bad, "x".repeat(129)]) {
    assert.equal(isId(id), false, id);
    assert.throws(() => checkId(id), { code: "invalid-argument" }, id);
  }
});

it("ids are numbered as the reference numbers them", () => {
  const ids = folderIDs("vfs");
  assert.equal(ids.volumeID(0), "vfs-000");
  assert.equal(ids.volumeID(1234), "vfs-1234");
  assert.equal(ids.snapshotID(7, "vfs-012"), "vfs-012-007");
  assert.equal(ids.numberOfVolume("vfs-012"), 12);
  assert.equal(ids.numberOfVolume("vfs-012-007"), undefined);
  assert.equal(ids.numberOfVolume(`vfs-${"9".repeat(30)}`), undefined);
  assert.equal(ids.numberOfSnapshot("vfs-012-007"), 7);
});
