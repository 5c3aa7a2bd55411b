import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { describe, it } from "node:test";
import { wireJson } from "@libstorage/model";
import type { Difference } from "./compare.js";
import { replay } from "./replay.js";
import { readRows } from "./rows.js";
import { SESSIONS } from "./sessions.js";
import { headerOf, readTrace } from "./traces.js";

const TRACES = SESSIONS.flatMap(({ traces }) => traces);

function shown({ trace, index, method, path, where, reference, here }: Difference): string {
  return `${trace}#${index} ${method} ${path}: ${where}: ${JSON.stringify(reference)} → ${JSON.stringify(here)}`;
}

describe("the recorded exchanges", async () => {
  const rows = await readRows();
  const used = new Set<string>();

  for (const session of SESSIONS)
    it(`${session.traces.join(", ")}: every difference stands in docs/compatibility.md`, async () => {
      const unexplained = (await replay(session)).filter((difference) => {
        const explaining = rows.filter((row) => row.explains(difference));
        for (const { id } of explaining) used.add(id);
        return explaining.length === 0;
      });
      assert.deepEqual(unexplained.map(shown), []);
    });

  it("explain every row of docs/compatibility.md", () => {
    const idle = rows.filter(({ id }) => !used.has(id)).map(({ id }) => id);
    assert.deepEqual(idle, [], "rows that explain nothing");
    assert.equal(new Set(rows.map(({ id }) => id)).size, rows.length, "two rows share an id");
  });

  it("are all replayed", async () => {
    const files = await readdir(new URL("../../compat/", import.meta.url));
    assert.deepEqual(
      files.filter((file) => file.endsWith(".json")).toSorted(),
      TRACES.map((trace) => `${trace}.json`).toSorted(),
    );
  });

  it("hold JSON as wireJson writes it", async () => {
    for (const trace of TRACES)
      for (const { response } of await readTrace(trace)) {
        if (!response.body || headerOf(response.headers, "content-type") !== "application/json")
          continue;
        assert.equal(wireJson(JSON.parse(response.body)), response.body, trace);
      }
  });
});
