import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Shelf } from "./shelf.js";

describe("a shelf", () => {
  it("keeps records by id, and finds them by name without case", () => {
    const shelf = new Shelf<{ id: string; name: string }>();
    shelf.put({ id: "b", name: "Data" });
    shelf.put({ id: "a", name: "data" });
    shelf.put({ id: "c", name: "other" });
    assert.deepEqual(
      shelf.all().map(({ id }) => id),
      ["a", "b", "c"],
    );
    assert.equal(shelf.named("DATA")?.id, "a");
    assert.deepEqual(
      shelf.allNamed("data").map(({ id }) => id),
      ["a", "b"],
    );
    assert.equal(shelf.size, 3);
  });

  it("forgets a name with its record, and follows a record to another name", () => {
    const shelf = new Shelf<{ id: string; name: string }>();
    shelf.put({ id: "a", name: "one" });
    shelf.put({ id: "a", name: "two" });
    assert.equal(shelf.named("one"), undefined);
    assert.equal(shelf.named("two")?.id, "a");
    assert.equal(shelf.remove("a"), true);
    assert.equal(shelf.remove("a"), false);
    assert.equal(shelf.named("two"), undefined);
    assert.deepEqual(shelf.all(), []);
  });

  it("gives the same list while nothing changed, and another one after", () => {
    const shelf = new Shelf<{ id: string; name: string }>();
    shelf.put({ id: "a", name: "one" });
    const list = shelf.all();
    assert.equal(shelf.all(), list);
    shelf.put({ id: "a", name: "one" });
    assert.notEqual(shelf.all(), list);
    shelf.replaceAll([{ id: "z", name: "last" }]);
    assert.deepEqual(shelf.all(), [{ id: "z", name: "last" }]);
    assert.equal(shelf.named("one"), undefined);
  });
});
