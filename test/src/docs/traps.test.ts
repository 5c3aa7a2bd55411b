/** Each test that docs/traps.md names is there, by file and title. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { it } from "node:test";
import { ROOT } from "../lab/image.js";

/** A file, and behind a colon the titles that are in it. */
const NAMED = /`([\w./-]+\.ts)`: ("[^"]+"(?:, "[^"]+")*)/g;

function pathOf(file: string): string {
  return join(ROOT, file.startsWith("packages/") ? file : `test/src/${file}`);
}

it("docs/traps.md names tests that exist", () => {
  const rows = readFileSync(join(ROOT, "docs/traps.md"), "utf8").split("\n");
  let count = 0;
  for (const row of rows)
    for (const [, file = "", titles = ""] of row.matchAll(NAMED)) {
      assert.ok(existsSync(pathOf(file)), `${file} is not there`);
      const text = readFileSync(pathOf(file), "utf8");
      for (const [, title = ""] of titles.matchAll(/"([^"]+)"/g)) {
        count += 1;
        assert.ok(text.includes(title), `${file} has no test "${title}"`);
      }
    }
  assert.ok(count > 60, `${count} titles were found`);
  for (const row of rows.filter((line) => line.includes(".ts`")))
    for (const [, file = ""] of row.matchAll(/`([\w./-]+\.ts)`/g))
      assert.ok(existsSync(pathOf(file.replace(/^test\/src\//, ""))), `${file} is not there`);
});
