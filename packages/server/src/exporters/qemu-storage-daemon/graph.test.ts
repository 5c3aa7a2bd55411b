import assert from "node:assert/strict";
import { it } from "node:test";
import { needCommands } from "./features.js";
import { nodeOver, nodesIn, topOf } from "./graph.js";

const node = (name: string, backing?: string) => ({
  "node-name": name,
  ...(backing !== undefined && { backing_file: backing }),
  image: { "virtual-size": 512, filename: "f" },
});

it("what is written is the last layer that was laid over the volume, and not one that was only added", () => {
  const added = [node("x-1"), node("volume-file"), node("volume"), node("volume-1")];
  assert.equal(topOf(nodesIn(added)).name, "volume");
  const laid = [...added.slice(0, 3), node("volume-9", "disk"), node("volume-10", "disk")];
  assert.equal(topOf(nodesIn(laid)).name, "volume-10");
  assert.equal(nodeOver("volume-10"), "volume-11");
  assert.equal(nodeOver("volume"), "volume-1");
  assert.throws(() => topOf(nodesIn([node("other")])), { code: "internal" });
});

it("a daemon that lacks a command is refused with its name", () => {
  const features = { commands: new Set(["block_resize"]), exports: new Map() };
  needCommands(features, ["block_resize"], "grow");
  assert.throws(() => needCommands(features, ["blockdev-snapshot"], "make layers"), {
    code: "unimplemented",
    message: /has no blockdev-snapshot/,
  });
});
