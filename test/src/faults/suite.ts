/** The fault run over one kind of world, as tests. */
import assert from "node:assert/strict";
import { it } from "node:test";
import { CountedFaults } from "@libstorage/server";
import type { Scene } from "./case.js";
import type { Operation } from "./operations.js";
import { DEEP, runOperation } from "./run.js";
import type { Depth } from "./run.js";
import { SERVICE, caller } from "./world.js";
import type { World } from "./world.js";

const SHOWN = 10;

/** Runs the operation without any fault: what it leads to, and how many points it passes. */
async function rehearse(
  operation: Operation,
  make: () => Promise<World>,
): Promise<{ readonly scene: Scene; readonly points: number }> {
  const world = await make();
  const before = await world.read();
  const plan = new CountedFaults(0, "fail");
  plan.disarm();
  const storage = await world.open(plan);
  plan.arm();
  await operation.run(storage.service(SERVICE), caller());
  const points = plan.passed;
  await storage.close();
  return { scene: { operation, before, after: await world.read(), make }, points };
}

export interface SuiteOptions {
  readonly name: string;
  readonly operations: readonly Operation[];
  readonly make: () => Promise<World>;
  /** Fewer cases than this mean that the run has lost its points. */
  readonly leastCases: number;
  readonly depth?: Depth;
}

/** To be called inside a `describe`. */
export function faultSuite({
  name,
  operations,
  make,
  leastCases,
  depth = DEEP,
}: SuiteOptions): void {
  let cases = 0;
  for (const operation of operations)
    it(`${operation.name} is done or gone, wherever it is hit`, async (t) => {
      const { scene, points } = await rehearse(operation, make);
      assert.ok(points >= 3, "an operation passes its doors");
      const { count, failures } = await runOperation(scene, points, depth);
      cases += count;
      t.diagnostic(`${operation.name}: ${points} points, ${count} cases`);
      const text = failures.slice(0, SHOWN).map((one) => `${one.name}\n${String(one.error)}`);
      assert.equal(failures.length, 0, `${failures.length} of ${count}:\n${text.join("\n\n")}`);
    });

  it(`has met at least ${leastCases} faults`, (t) => {
    t.diagnostic(`fault run over ${name}: ${cases} cases`);
    assert.ok(cases >= leastCases, `${cases} cases`);
  });
}
