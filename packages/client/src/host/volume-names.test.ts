import assert from "node:assert/strict";
import { it } from "node:test";
import { filterFor, findNamed } from "./volume-names.js";

const volumes = {
  a: { "v-1": { id: "v-1", name: "web" }, "v-2": { id: "v-2", name: "Web" } },
  b: { "v-1": { id: "v-1", name: "other" }, "v-3": { id: "v-3", name: "v-2" } },
};

it("finds by id and by exact name, with its case", () => {
  assert.deepEqual(findNamed("volume", "web", volumes).object.id, "v-1");
  assert.deepEqual(findNamed("volume", "v-3", volumes), {
    service: "b",
    object: volumes.b["v-3"],
  });
  for (const name of ["we", "WEB", "webs", ""])
    assert.throws(() => findNamed("volume", name, volumes), { code: "not-found" }, name);
});

it("refuses what names several, even as the id of one and the name of another", () => {
  assert.throws(() => findNamed("volume", "v-1", volumes), {
    code: "failed-precondition",
    message: "2 volumes are called v-1: v-1 in a, v-1 in b; name one by its id and --service",
  });
  assert.throws(() => findNamed("volume", "v-2", volumes), { code: "failed-precondition" });
});

it("filters only by what needs no escaping", () => {
  assert.equal(filterFor("web-1.x"), "(|(id=web-1.x)(name=web-1.x))");
  for (const name of ["a b", "a*", "(x)", "ü", "a%41", "", ".x"])
    assert.equal(filterFor(name), undefined);
});
