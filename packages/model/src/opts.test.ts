import assert from "node:assert/strict";
import { it } from "node:test";
import { fieldsOfOpts } from "./opts.js";

it("opts become texts as the reference stored them (recorded lifecycle)", () => {
  const opts = {
    owner: "me",
    count: 5,
    flag: true,
    ratio: 1.5,
    nested: { k: "v" },
    list: [1, "b"],
    nothing: null,
  };
  assert.deepEqual(fieldsOfOpts(opts), {
    owner: "me",
    count: "5",
    flag: "true",
    ratio: "1.5",
    nested: "map[k:v]",
    list: "[1 b]",
    nothing: "",
  });
});

it("keys are in lower case, and any name is a name", () => {
  assert.deepEqual(fieldsOfOpts({ FooBar: "X" }), { foobar: "X" });
  const odd = fieldsOfOpts(JSON.parse('{"__proto__":"x"}'));
  assert.deepEqual(Object.keys(odd), ["__proto__"]);
});

it("nested values are printed as Go's %v prints them", () => {
  const nested = { b: [null, true, { z: [], a: {} }], a: "x y" };
  assert.deepEqual(fieldsOfOpts({ nested }), {
    nested: "map[a:x y b:[<nil> true map[a:map[] z:[]]]]",
  });
});

it("numbers are printed as Go's %v prints a float64", () => {
  const printed = (value: number): string | undefined => fieldsOfOpts({ value })["value"];
  assert.equal(printed(0), "0");
  assert.equal(printed(-7), "-7");
  assert.equal(printed(999_999), "999999");
  assert.equal(printed(0.0001), "0.0001");
  assert.equal(printed(1_000_000), "1e+06");
  assert.equal(printed(123_456_789), "1.23456789e+08");
  assert.equal(printed(1e21), "1e+21");
  assert.equal(printed(0.000_01), "1e-05");
  assert.equal(printed(-2.5e-7), "-2.5e-07");
});
