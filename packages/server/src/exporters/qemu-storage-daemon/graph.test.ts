import assert from "node:assert/strict";
import { it } from "node:test";
import { needCommands } from "./features.js";
import { inClosingOrder, nodesIn, topOf } from "./graph.js";
import { NodeNames } from "./node-names.js";

const node = (name: string, backing?: string) => ({
  "node-name": name,
  ...(backing !== undefined && { backing_file: backing }),
  image: { "virtual-size": 512, filename: "f" },
});

const KEYS = ["0123456789abcdef", "fedcba9876543210"] as const;
const AMONG = NodeNames.among(KEYS[0]);
const OTHER = NodeNames.among(KEYS[1]);
const EXPORT = "e-0011223344556677";

for (const names of [NodeNames.alone, AMONG])
  it(`of ${names.node} the last layer that was laid over it is written, and not one that was only added`, () => {
    const own = names.node;
    const added = [node("x-1"), node(`${own}-file`), node(own), node(`${own}-1`)];
    assert.equal(topOf(nodesIn(added), names).name, own);
    const laid = [...added.slice(0, 3), node(`${own}-9`, "disk"), node(`${own}-10`, "disk")];
    assert.equal(topOf(nodesIn(laid), names).name, `${own}-10`);
    assert.equal(names.over(`${own}-10`), `${own}-11`);
    assert.equal(names.over(own), `${own}-1`);
    assert.throws(() => topOf(nodesIn([node("other")]), names), { code: "internal" });
  });

it("a volume among others never takes another's node for its own", () => {
  const nodes = [node(OTHER.node), node(`${OTHER.node}-7`, "disk"), node(AMONG.node)];
  assert.equal(topOf(nodesIn(nodes), AMONG).name, AMONG.node);
  const names = [OTHER.filterOf(EXPORT), OTHER.deadEndOf(EXPORT), `${OTHER.node}-7-file`];
  for (const name of [...names, OTHER.groupOf(EXPORT)]) {
    assert.equal(AMONG.isOwn(name), false, name);
    assert.equal(AMONG.isFilter(name) || AMONG.isGroup(name), false, name);
  }
  for (const name of names) assert.equal(OTHER.isOwn(name), true, name);
});

it("names are short enough for QEMU, and tell exports apart", () => {
  const all = [AMONG.filterOf(EXPORT), AMONG.deadEndOf(EXPORT), `${AMONG.node}-123456-file`];
  for (const name of all) assert.ok(name.length <= 31, name);
  assert.notEqual(AMONG.filterOf(EXPORT), AMONG.filterOf("e-0011223344666677"));
  assert.equal(NodeNames.alone.filterOf(EXPORT), "x-0011223344556677", "as it always was");
});

it("what is left of volumes is found by any of their nodes", () => {
  const found = NodeNames.in(["#block12", `${AMONG.node}-file`, OTHER.filterOf(EXPORT), "x"]);
  assert.deepEqual(
    found.map((names) => names.node),
    [AMONG.node, OTHER.node],
  );
  assert.deepEqual(NodeNames.in(["volume-file", NodeNames.alone.filterOf(EXPORT)]), [
    NodeNames.alone,
  ]);
});

it("nodes are closed before those that they lead to", () => {
  const own = AMONG.node;
  const nodes = [
    AMONG.deadEndOf(EXPORT),
    `${own}-file`,
    own,
    `${own}-10`,
    `${own}-9-file`,
    AMONG.filterOf(EXPORT),
    `${own}-9`,
    `${own}-10-file`,
  ];
  assert.deepEqual(inClosingOrder(nodes, AMONG), [
    AMONG.filterOf(EXPORT),
    `${own}-10`,
    `${own}-10-file`,
    `${own}-9`,
    `${own}-9-file`,
    own,
    `${own}-file`,
    AMONG.deadEndOf(EXPORT),
  ]);
});

it("a daemon that lacks a command is refused with its name", () => {
  const features = { commands: new Set(["block_resize"]), exports: new Map() };
  needCommands(features, ["block_resize"], "grow");
  assert.throws(() => needCommands(features, ["blockdev-snapshot"], "make layers"), {
    code: "unimplemented",
    message: /has no blockdev-snapshot/,
  });
});
