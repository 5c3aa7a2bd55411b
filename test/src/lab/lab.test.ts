import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { formatTestEnd, parseTestEnd } from "./events.js";
import type { TestEnd } from "./events.js";

describe("the lab", () => {
  it("has a test in npm test for each of its suites", () => {
    const folder = fileURLToPath(new URL(".", import.meta.url));
    const suites = readdirSync(folder).filter((name) => name.endsWith(".lab.js"));
    assert.notEqual(suites.length, 0);
    for (const suite of suites)
      assert.ok(existsSync(join(folder, suite.replace(".lab.js", ".test.js"))), suite);
  });

  it("tells the end of a test from what tests print", () => {
    const end: TestEnd = { path: ["a\n", "b"], outcome: "failed", ms: 3, text: "line\nline" };
    const text = formatTestEnd(end);
    assert.equal(text.indexOf("\n"), text.length - 1);
    assert.deepEqual(parseTestEnd(text.trimEnd()), end);
    assert.equal(parseTestEnd(`{"path":[]}`), undefined);
  });
});
