/** One case: an operation that meets its fault, what is left of it, the operation once more, and the end. */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { CountedFaults } from "@libstorage/server";
import type { LiveTask, PlannedFault, Storage } from "@libstorage/server";
import { checkInvariants, isSameShape, shapeOf } from "./invariants.js";
import type { Operation } from "./operations.js";
import { SERVICE, caller } from "./world.js";
import type { World, WorldState } from "./world.js";

/** What all cases of one operation share. */
export interface Scene {
  readonly operation: Operation;
  readonly before: WorldState;
  readonly after: WorldState;
  /** A prepared world for a case. */
  readonly make: () => Promise<World>;
}

export interface Plan {
  /** The first one hits the operation, the others what is done about it. */
  readonly faults: readonly [PlannedFault, ...PlannedFault[]];
  /** Hits the recovery after a kill. */
  readonly recovery?: PlannedFault;
}

/** How many points there were, for planning further faults. */
export interface Counts {
  readonly points: number;
  readonly recoveryPoints: number;
}

const HUNG_MS = 50;
const KEY = "the key";

interface Outcome {
  readonly value?: unknown;
  readonly error?: unknown;
  readonly isAnswered: boolean;
}

export function nameOf({ operation }: Scene, { faults, recovery }: Plan): string {
  const all = faults.map(({ at, mode }) => `${mode} at ${at}`);
  if (recovery !== undefined) all.push(`${recovery.mode} at ${recovery.at} of the recovery`);
  return `${operation.name}: ${all.join(", then ")}`;
}

function outcomeOf(running: Promise<unknown>): Promise<Outcome> {
  return running.then(
    (value) => ({ value, isAnswered: true }),
    (error: unknown) => ({ error, isAnswered: false }),
  );
}

/** Runs the operation; one that hangs is cancelled, and killed where that does not help. */
async function attempt(
  storage: Storage,
  operation: Operation,
  plan: CountedFaults,
): Promise<Outcome> {
  let task: LiveTask | undefined;
  const who = { ...caller(KEY), onTask: (live: LiveTask) => (task = live) };
  const running = outcomeOf(operation.run(storage.service(SERVICE), who));
  let cancelled: number | undefined;
  for (;;) {
    const outcome = await Promise.race([running, sleep(2)]);
    if (outcome !== undefined) return outcome;
    if (!plan.isHanging) continue;
    if (cancelled === undefined) {
      task?.cancel("the test");
      cancelled = performance.now();
    } else if (performance.now() - cancelled > HUNG_MS) plan.kill();
  }
}

/** Opens the folder after a kill, once with a fault in the recovery if that is planned. */
async function restart(world: World, fault: PlannedFault | undefined): Promise<number> {
  const { at, mode } = fault ?? { at: 0, mode: "fail" };
  const plan = new CountedFaults(at, mode);
  try {
    const storage = await world.open(plan);
    await storage.recovered();
    await storage.close();
  } catch (error) {
    if (!plan.isDead) throw error;
  }
  return plan.points.length;
}

export async function runCase(scene: Scene, plan: Plan): Promise<Counts> {
  const world = await scene.make();
  const { folder } = world;
  const [first, ...more] = plan.faults;
  const faults = new CountedFaults(first.at, first.mode, ...more);
  faults.disarm();
  let storage = await world.open(faults);
  let recoveryPoints = 0;
  try {
    faults.arm();
    const outcome = await attempt(storage, scene.operation, faults);
    const points = faults.passed;
    const isKilled = faults.isDead;
    if (!isKilled) faults.disarm();
    // A second failure may leave what only the next start clears.
    if (isKilled || more.length > 0) {
      await storage.close();
      // What is only written by a stop in order.
      if (isKilled) await rm(join(folder, "journal", "closed"), { force: true });
      recoveryPoints = await restart(world, plan.recovery);
      // What a start clears beside its work is gone when it has been closed.
      if (plan.recovery !== undefined) await restart(world, undefined);
      storage = await world.open();
      await storage.recovered();
    }
    // A failure that was written down before the kill stays one.
    const isCut = isKilled && more.length === 0;
    await checkOutcome(scene, world, storage, outcome, isCut);
    await checkRepeats(scene, world, storage, outcome, isCut);
    await checkEmptied(world, storage);
    return { points, recoveryPoints };
  } finally {
    await storage.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Completely done or completely gone, and done when that was answered. */
async function checkOutcome(
  { operation, before, after }: Scene,
  world: World,
  storage: Storage,
  { isAnswered, error }: Outcome,
  isCut: boolean,
): Promise<void> {
  const state = await checkInvariants(world, storage, before);
  if (isAnswered) {
    assert.deepEqual(shapeOf(state), shapeOf(after), "it was answered, but is not there");
    return;
  }
  assert.ok(error instanceof Error, "not an error");
  const isHalfwayFine = !isCut || operation.isHalfwayAfterKill === true;
  const allowed = [before, after];
  if (isHalfwayFine && operation.halfway !== undefined) allowed.push(operation.halfway(before));
  if (allowed.some((one) => isSameShape(one, state))) return;
  assert.deepEqual(shapeOf(state), shapeOf(before), "neither done nor gone");
}

/**
 * The same request gets its first answer; the same wish in a new request is fulfilled.
 * @param isAnew whether a kill came before any answer, so that the same request is a new one
 */
async function checkRepeats(
  { operation, before, after }: Scene,
  world: World,
  storage: Storage,
  first: Outcome,
  isAnew: boolean,
): Promise<void> {
  const service = storage.service(SERVICE);
  const again = await outcomeOf(operation.run(service, caller(KEY)));
  if (first.isAnswered) {
    assert.ok(again.isAnswered, `the answer to the repeated request: ${String(again.error)}`);
    assert.equal(JSON.stringify(again.value), JSON.stringify(first.value), "another answer");
  } else if (isAnew) {
    assert.ok(again.isAnswered, `the repeated request after the kill: ${String(again.error)}`);
  }
  if (!again.isAnswered) {
    assert.equal(String(again.error), String(first.error), "another error");
    await operation.run(service, caller()).catch(async (error: unknown) => {
      // It failed and is done all the same: there is nothing left to remove.
      const isGone = error instanceof StorageError && error.code === "not-found";
      assert.ok(isGone && isSameShape(await world.read(), after), `once more: ${String(error)}`);
    });
  }
  const state = await checkInvariants(world, storage, before);
  assert.deepEqual(shapeOf(state), shapeOf(after), "after the repeat");
  checkIDs(storage, state);
}

/** No id of an object that was begun earlier and is gone now belongs to another one. */
function checkIDs(storage: Storage, state: WorldState): void {
  const begun = new Map<string, number>();
  for (const { phase, operation, volumeID, snapshotID, seq } of storage.journal.since(0)) {
    if (
      phase !== "intent" ||
      !/^(?:volumeC(?:reate|opy)|volumeUpload|volumeSnap|snapshotCopy)/.test(operation)
    )
      continue;
    const id = snapshotID ?? volumeID ?? "";
    assert.ok(!begun.has(id), `${id} was given by intent ${begun.get(id)} and again by ${seq}`);
    begun.set(id, seq);
  }
  for (const { id } of state.values()) assert.ok(begun.has(id), `${id} was made by nobody`);
}

/** Everything can be removed, and then nothing is left. */
async function checkEmptied(world: World, storage: Storage): Promise<void> {
  const service = storage.service(SERVICE);
  for (const { id } of service.inventory.snapshots.all())
    await service.snapshotRemove(id, caller());
  for (const { id } of service.inventory.volumes.all())
    await service.volumeRemove(id, true, caller());
  assert.deepEqual([...(await world.read()).keys()], [], "left after everything was removed");
  assert.deepEqual(storage.journal.openIntents(), []);
}
