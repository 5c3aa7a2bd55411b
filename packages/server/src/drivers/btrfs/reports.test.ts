import assert from "node:assert/strict";
import { it } from "node:test";
import { parseDeleted, parsePaths, parseUUID } from "./reports.js";

/** As btrfs-progs 6.2 print them. */
const LIST = `ID 258 gen 8 top level 256 path a/n
ID 259 gen 8 top level 256 path a/d/name with blanks
`;
const LIST_DELETED = `ID 319 gen 56 top level 0 path DELETED
ID 320 gen 58 top level 0 path DELETED
`;
const SHOW = `Label: none  uuid: 6d3eb231-b968-466d-ac61-2f00f85a5df4
\tTotal devices 1 FS bytes used 144.00KiB
\tdevid    1 size 600.00MiB used 88.00MiB path /dev/loop0

`;

it("a path is the rest of its line", () => {
  assert.deepEqual(parsePaths(LIST), ["a/n", "a/d/name with blanks"]);
  assert.deepEqual(parsePaths(""), []);
  assert.deepEqual(parsePaths("x\nID nonsense\n"), []);
});

it("deleted subvolumes are counted, others not", () => {
  assert.equal(parseDeleted(LIST_DELETED), 2);
  assert.equal(parseDeleted(LIST), 0);
  assert.equal(parseDeleted(""), 0);
});

it("the UUID is found beside any label", () => {
  const uuid = "6d3eb231-b968-466d-ac61-2f00f85a5df4";
  assert.equal(parseUUID(SHOW), uuid);
  assert.equal(parseUUID(SHOW.replace("none", "'my uuid: disk'")), uuid);
  assert.throws(() => parseUUID("Label: none\n"), /names no UUID/);
});
