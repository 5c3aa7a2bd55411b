import assert from "node:assert/strict";
import { it } from "node:test";
import { CommandError } from "../executor/exec.js";
import type { Exec } from "../executor/exec.js";
import { parseBlkid, parseWipefs, probe } from "./probe.js";

// Recorded from blkid and wipefs 2.38.1.
const EXT4 = `DEVNAME=/dev/loop1
LABEL=my\\ disk
UUID=43f19257-4f14-4638-9d55-57c12304170f
VERSION=1.0
BLOCK_SIZE=1024
TYPE=ext4
USAGE=filesystem
`;
const WIPEFS = `{
   "signatures": [
      {
         "device": "loop1",
         "offset": "0x10040",
         "type": "btrfs",
         "uuid": "88ac1872-14c2-42f2-a397-cc4abe39f500",
         "label": null
      }
   ]
}
`;
const NO_SIGNATURES = '{\n   "signatures": [\n\n   ]\n}\n';

const limit = { signal: new AbortController().signal, timeoutMs: 1000 };

/** Answers by the command's name: what it prints, or the exit code with which it fails. */
function tools(answers: Readonly<Record<string, string | number>>): Exec {
  return async (file, args) => {
    const answer = answers[file] ?? "";
    if (typeof answer === "number")
      throw new CommandError(file, args, { exitCode: answer, stderr: "said so" }, undefined);
    return { stdout: answer, stderr: "" };
  };
}

it("reads what blkid and wipefs print", () => {
  const found = parseBlkid(EXT4);
  assert.equal(found.get("TYPE"), "ext4");
  assert.equal(found.get("LABEL"), "my disk");
  assert.deepEqual(parseWipefs(WIPEFS), [{ type: "btrfs", offset: "0x10040" }]);
  assert.deepEqual(parseWipefs(NO_SIGNATURES), []);
  assert.deepEqual(parseWipefs(""), []);
  assert.throws(() => parseWipefs('{"devices": []}'));
});

it("calls blank only what every tool calls so", async () => {
  const blank = { blkid: 2, wipefs: NO_SIGNATURES };
  assert.deepEqual(await probe(tools(blank), "/dev/x", limit), { kind: "blank" });
  const content = {
    kind: "other",
    what: "data in its first MiB that no tool recognises",
    isUnknown: true,
  };
  assert.deepEqual(await probe(tools({ ...blank, cmp: 1 }), "/dev/x", limit), content);
  const sign = await probe(tools({ ...blank, wipefs: WIPEFS }), "/dev/x", limit);
  assert.deepEqual(sign, { kind: "other", what: "a signature of btrfs at 0x10040" });
});

// A LUN that was taken away: blkid and wipefs find nothing and say so without an error.
it("calls a device that cannot be read neither blank nor anything else", async () => {
  const gone = { blkid: 2, wipefs: NO_SIGNATURES, cmp: 2 };
  await assert.rejects(probe(tools(gone), "/dev/x", limit), { code: "unavailable" });
  await assert.rejects(probe(tools({ blkid: 4 }), "/dev/x", limit), CommandError);
});

it("names what is there", async () => {
  const kinds: readonly [string | number, unknown][] = [
    [
      EXT4,
      {
        kind: "filesystem",
        type: "ext4",
        uuid: "43f19257-4f14-4638-9d55-57c12304170f",
        label: "my disk",
      },
    ],
    ["TYPE=LVM2_member\nUSAGE=raid\n", { kind: "other", what: "raid LVM2_member" }],
    ["PTUUID=1\nPTTYPE=gpt\n", { kind: "other", what: "a partition table (gpt)" }],
    [8, { kind: "other", what: "several things at once (btrfs at 0x10040)" }],
  ];
  for (const [blkid, expected] of kinds)
    assert.deepEqual(await probe(tools({ blkid, wipefs: WIPEFS }), "/dev/x", limit), expected);
});
