/** Plans all faults of an operation and runs the cases, a few at a time. */
import type { FaultMode, PlannedFault } from "@libstorage/server";
import { nameOf, runCase } from "./case.js";
import type { Counts, Plan, Scene } from "./case.js";

/** Which faults each point meets. */
export interface Depth {
  readonly modes: readonly FaultMode[];
  /** Those that a taking back or a recovery meets at its points. */
  readonly further: readonly FaultMode[];
  /** Of the first faults only each so manieth is tried; a number that shares no divisor with that of the modes. */
  readonly every?: number;
}

export const DEEP: Depth = {
  modes: ["fail", "hang", "lost-answer", "kill-before", "kill-after"],
  // A kill before a point leaves the same as one after the point before it.
  further: ["fail", "kill-after"],
};

const AT_ONCE = 4;

export interface Failure {
  readonly name: string;
  readonly error: unknown;
}

/** Runs plans with a few at a time. A plan's counts may lead to further plans. */
async function runAll(
  scene: Scene,
  plans: Plan[],
  further: (plan: Plan, counts: Counts) => Plan[],
): Promise<{ readonly count: number; readonly failures: Failure[] }> {
  const failures: Failure[] = [];
  let count = 0;
  const work = async (): Promise<void> => {
    for (let plan = plans.shift(); plan !== undefined; plan = plans.shift()) {
      count += 1;
      try {
        plans.push(...further(plan, await runCase(scene, plan)));
      } catch (error) {
        failures.push({ name: nameOf(scene, plan), error });
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { count, failures };
}

function numbers(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index);
}

function planned(points: readonly number[], modes: readonly FaultMode[]): PlannedFault[] {
  return points.flatMap((at) => modes.map((mode) => ({ at, mode })));
}

/**
 * Every fault at every point; after a failure, every further one while it is taken back; after a kill,
 * every further one in the recovery.
 */
export function runOperation(
  scene: Scene,
  points: number,
  depth: Depth,
): ReturnType<typeof runAll> {
  const { every = 1 } = depth;
  const plans = planned(numbers(1, points), depth.modes)
    .filter((_fault, index) => index % every === points % every)
    .map((fault): Plan => ({ faults: [fault] }));
  const further = ({ faults, recovery }: Plan, counts: Counts): Plan[] => {
    const [first, ...more] = faults;
    if (more.length > 0 || recovery !== undefined) return [];
    // Every second point, and the last: their neighbours leave nearly the same.
    if (first.at % 2 === 1 && first.at !== points) return [];
    if (first.mode === "fail")
      return planned(numbers(first.at + 1, counts.points), depth.further).map((second) => ({
        faults: [first, second],
      }));
    if (first.mode !== "kill-after") return [];
    return planned(numbers(1, counts.recoveryPoints), depth.further).map((second) => ({
      faults,
      recovery: second,
    }));
  };
  return runAll(scene, plans, further);
}
