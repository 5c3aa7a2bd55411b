import assert from "node:assert/strict";
import { it } from "node:test";
import { parseDeleted, parseIDs, parseLimits, parsePaths, parseUUID } from "./reports.js";

/** As btrfs-progs 6.2 print them. */
const LIST = `ID 258 gen 8 top level 256 path a/n
ID 259 gen 8 top level 256 path a/d/name with blanks
`;
/** The same for all that have limits, and for the whole file system, a group of groups and one that is left over. */
const GROUPS = `Qgroupid    Referenced    Exclusive  Max referenced   Path 
--------    ----------    ---------  --------------   ---- 
0/5              16384        16384            none   <toplevel>
0/258            16384        16384        67108865   r/a/n
0/259          1064960      1064960            none   r/a/d/name with blanks
0/260                0            0      1073741824   <stale>
1/100            16384        16384            1024   <0 member qgroups>
`;
/** btrfs-progs 5.10 print no path. */
const GROUPS_OF_OLD = `qgroupid         rfer         excl     max_rfer 
--------         ----         ----     -------- 
0/5             16384        16384         none 
0/258           16384        16384     67108865 
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

it("a limit belongs to the subvolume of its group's number", () => {
  assert.deepEqual(
    [...parseLimits(GROUPS)],
    [
      ["5", undefined],
      ["258", 67_108_865],
      ["259", undefined],
      ["260", 1_073_741_824],
    ],
  );
  assert.equal(parseLimits(GROUPS_OF_OLD).get("258"), 67_108_865);
  assert.deepEqual(
    [...parseIDs(LIST)],
    [
      ["258", "a/n"],
      ["259", "a/d/name with blanks"],
    ],
  );
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
