/**
 * The fault run over vfs: each operation meets each fault at each command, file change and journal entry,
 * and after a restart it is either done or gone. Section 6 of docs/design.md.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { join } from "node:path";
import { CountedFaults } from "@libstorage/server";
import type { Scene } from "./case.js";
import { makeScratch } from "./folders.js";
import type { Operation } from "./operations.js";
import { OPERATIONS } from "./operations.js";
import { runOperation } from "./run.js";
import { SERVICE, caller, copyWorld, openWorld, prepareWorld, readWorld } from "./world.js";
import type { WorldState } from "./world.js";

const scratch = makeScratch("faults");
const template = join(scratch.path, "template");
const shown = 10;
let folders = 0;
let cases = 0;

function nextFolder(): string {
  folders += 1;
  return join(scratch.path, `case-${folders}`);
}

/** Runs the operation without any fault: what it leads to, and how many points it passes. */
async function rehearse(
  operation: Operation,
  start: WorldState,
): Promise<{ readonly scene: Scene; readonly points: readonly string[] }> {
  const folder = nextFolder();
  await copyWorld(template, folder);
  const plan = new CountedFaults(0, "fail");
  const storage = await openWorld(folder, plan);
  plan.arm();
  await operation.run(storage.service(SERVICE), caller());
  const points = plan.points.map(({ door, what }) => `${door} ${what}`);
  await storage.close();
  const end = readWorld(folder);
  return {
    scene: { operation, template, before: start, after: end, next: nextFolder },
    points,
  };
}

describe("faults in vfs", () => {
  let start: WorldState;
  before(async () => {
    await prepareWorld(template);
    start = readWorld(template);
  });
  after(() => scratch.remove());

  for (const operation of OPERATIONS)
    it(`${operation.name} is done or gone, wherever it is hit`, async (t) => {
      const { scene, points } = await rehearse(operation, start);
      assert.ok(points.length >= 5, "an operation passes its doors");
      const { count, failures } = await runOperation(scene, points.length);
      cases += count;
      t.diagnostic(`${operation.name}: ${points.length} points, ${count} cases`);
      const text = failures.slice(0, shown).map(({ name, error }) => `${name}\n${String(error)}`);
      assert.equal(failures.length, 0, `${failures.length} of ${count}:\n${text.join("\n\n")}`);
    });

  it("has met at least 1,000 faults", (t) => {
    t.diagnostic(`fault run over vfs: ${cases} cases`);
    assert.ok(cases >= 1000, `${cases} cases`);
  });
});
