import assert from "node:assert/strict";
import { it } from "node:test";
import { columns, printable } from "./columns.js";

it("aligns columns and ends no line with blanks", () => {
  assert.equal(
    columns([
      ["A", "B", "C"],
      ["long", "", "x"],
      ["ü", "y", ""],
    ]),
    "A     B  C\nlong     x\nü     y",
  );
});

it("counts the cells of wide and combined characters", () => {
  const rows = columns([
    ["日本", "x"],
    ["e\u0301e", "x"],
    ["🙂", "x"],
  ]).split("\n");
  assert.deepEqual(rows, ["日本  x", "e\u0301e    x", "🙂    x"]);
});

it("shows what would move the cursor", () => {
  assert.equal(printable("a\u001b[2Jb\u202e\n"), "a\\u{1b}[2Jb\\u{202e}\\u{a}");
});
