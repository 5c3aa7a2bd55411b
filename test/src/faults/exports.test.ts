/**
 * The fault run over exports, with real storage daemons: each operation is hit once at each of its commands, file writes,
 * journal entries and words to a daemon. Whatever happens, what is there is what the records name, no image is open twice
 * and no writer has company; the same can be asked again; a server starts on what is left; and in the end nothing is left.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { TestContext } from "node:test";
import { StorageError } from "@libstorage/model";
import { CountedFaults } from "@libstorage/server";
import type { FaultMode, FaultPoint, PlannedFault } from "@libstorage/server";
import type { DoorHost } from "../exporters/door-host.js";
import { liveMissing } from "../exporters/live-client.js";
import { ALL_KINDS, DOOR, OPERATIONS, useDoor } from "./export-operations.js";
import type { ExportOperation, User } from "./export-operations.js";
import { ExportWorld, daemonsFor, mountsBelow } from "./export-world.js";
import type { Layout } from "./export-world.js";
import { makeScratch } from "./folders.js";
import { closeMonitors, inServer, isLook, openQmpDoor } from "./qmp-door.js";

const MODES: readonly FaultMode[] = ["fail", "lost-answer", "kill-after"];
/** Of all cases only each so manieth is run, others for each operation and each layout; `FAULTS_EVERY=1` runs all. */
const EVERY = Number(process.env["FAULTS_EVERY"] ?? "10");
const LIMIT_MS = EVERY < 10 ? 7_200_000 : 840_000;
const LEAST_CASES = 250;
const AT_ONCE = 3;
const SHOWN = 10;

const scratch = makeScratch("ef");
const template = `${scratch.path}/t`;
let folders = 0;

const nobody = (): CountedFaults => {
  const plan = new CountedFaults(0, "fail");
  plan.disarm();
  return plan;
};

interface Attempt {
  readonly error?: unknown;
  readonly isAnswered: boolean;
}

class Case {
  readonly #world: ExportWorld;
  readonly #operation: ExportOperation;
  #plan: CountedFaults;
  #host: DoorHost;

  private constructor(
    world: ExportWorld,
    operation: ExportOperation,
    plan: CountedFaults,
    host: DoorHost,
  ) {
    this.#world = world;
    this.#operation = operation;
    this.#plan = plan;
    this.#host = host;
  }

  static async make(operation: ExportOperation, layout: Layout, plan: CountedFaults) {
    const world = await makeWorld(layout);
    plan.disarm();
    const one = new Case(world, operation, plan, await world.open(plan));
    await inServer(plan, async () => {
      for (const door of operation.doors) await one.#host.add(door);
    });
    return one;
  }

  get #state(): string | undefined {
    return this.#world.doors(this.#host).find(({ id }) => id === DOOR)?.state;
  }

  #attempt(): Promise<Attempt> {
    return inServer(this.#plan, () => this.#operation.run(this.#host)).then(
      () => ({ isAnswered: true }),
      (error: unknown) => ({ error, isAnswered: false }),
    );
  }

  async #restart(): Promise<void> {
    await inServer(this.#plan, () => this.#host.close()).catch((error: unknown) => {
      if (!this.#plan.isDead) throw error;
    });
    closeMonitors(this.#plan);
    if (this.#plan.isDead) await this.#world.forgetStop();
    this.#plan = nobody();
    this.#host = await this.#world.open(this.#plan);
  }

  /** @returns the points that the operation has passed */
  async run(): Promise<readonly FaultPoint[]> {
    const before = this.#state;
    const user = this.#operation.isUsed ? await this.#use() : undefined;
    this.#plan.arm();
    const outcome = await this.#attempt();
    const points = [...this.#plan.points];
    this.#plan.disarm();
    if (this.#plan.isDead) await this.#restart();
    try {
      await this.#checkState(before, outcome);
      await this.#repeat();
      await this.#restart();
      await this.#world.check(this.#host);
    } finally {
      await user?.();
    }
    await inServer(this.#plan, () => this.#world.end(this.#host));
    return points;
  }

  async #use(): Promise<User> {
    const door = this.#world.doors(this.#host).find(({ id }) => id === DOOR);
    assert.ok(door !== undefined);
    return useDoor(door);
  }

  async #checkState(before: string | undefined, { isAnswered, error }: Attempt): Promise<void> {
    await this.#world.check(this.#host, !isAnswered);
    const state = this.#state;
    const isDone = this.#operation.done(state);
    if (isAnswered) assert.ok(isDone, `it was answered, and the door is ${state}`);
    else assert.ok(isDone || state === before, `the door is ${state} after ${String(error)}`);
  }

  /** The same once more: it is done now, or was before. */
  async #repeat(): Promise<void> {
    const { error, isAnswered } = await this.#attempt();
    const wasDone =
      error instanceof StorageError && ["already-exists", "not-found"].includes(error.code);
    assert.ok(isAnswered || (wasDone && this.#operation.done(this.#state)), String(error));
    await this.#world.check(this.#host);
    assert.ok(this.#operation.done(this.#state), `the door is ${this.#state} after the repeat`);
  }
}

function makeWorld(layout: Layout): Promise<ExportWorld> {
  folders += 1;
  return ExportWorld.make(template, `${scratch.path}/${folders}`, layout);
}

/** A start after all daemons have died. @returns its points */
async function runStart(
  layout: Layout,
  { at, mode }: PlannedFault,
): Promise<readonly FaultPoint[]> {
  const world = await makeWorld(layout);
  const first = nobody();
  const host = await world.open(first);
  await inServer(first, async () => {
    for (const door of ALL_KINDS) await host.add(door);
    await host.close();
  });
  closeMonitors(first);
  await world.loseDaemons();
  const plan = new CountedFaults(at, mode);
  const begun = await world.open(plan).catch(() => undefined);
  const points = [...plan.points];
  plan.disarm();
  await inServer(plan, async () => begun?.close()).catch(() => {});
  closeMonitors(plan);
  if (plan.isDead) await world.forgetStop();
  const last = nobody();
  const again = await world.open(last);
  await world.check(again);
  assert.equal(world.doors(again).length, ALL_KINDS.length);
  await inServer(last, () => world.end(again));
  return points;
}

async function runCase(
  operation: ExportOperation,
  layout: Layout,
  { at, mode }: PlannedFault,
): Promise<readonly FaultPoint[]> {
  return (await Case.make(operation, layout, new CountedFaults(at, mode))).run();
}

function planned(points: readonly FaultPoint[], offset: number): readonly PlannedFault[] {
  return points
    .flatMap((point, index) =>
      MODES.filter((mode) => mode === "fail" || !isLook(point)).map((mode) => ({
        at: index + 1,
        mode,
      })),
    )
    .filter((_fault, index) => index % EVERY === offset % EVERY);
}

describe("faults in exports", { skip: liveMissing, timeout: LIMIT_MS }, () => {
  let closeDoor = (): void => {};
  let cases = 0;
  const started = performance.now();

  before(async () => {
    await ExportWorld.prepare(template);
    closeDoor = openQmpDoor();
  });
  after(async () => {
    closeDoor();
    // Of cases that failed.
    for (const pid of daemonsFor(scratch.path)) process.kill(pid, "SIGKILL");
    assert.deepEqual(mountsBelow(scratch.path), []);
    await scratch.remove();
  });

  type Run = (plan: PlannedFault) => Promise<readonly FaultPoint[]>;
  const hitAll = async (t: TestContext, run: Run, offset: number): Promise<void> => {
    const points = await run({ at: 0, mode: "fail" });
    assert.ok(points.length >= 5, "an operation passes its doors");
    const plans = [...planned(points, offset)];
    const failures: string[] = [];
    const count = plans.length;
    const work = async (): Promise<void> => {
      for (let plan = plans.shift(); plan !== undefined; plan = plans.shift()) {
        const where = `${plan.mode} at ${plan.at}, ${points[plan.at - 1]?.what}`;
        await run(plan).catch((error: unknown) =>
          failures.push(`${where}: ${error instanceof Error ? error.stack : ""}`),
        );
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    cases += count;
    t.diagnostic(`${points.length} points, ${count} cases`);
    const text = failures.slice(0, SHOWN).join("\n\n");
    assert.equal(failures.length, 0, `${failures.length} of ${count}:\n${text}`);
  };

  for (const [turn, layout] of (["service", "volume"] as const).entries())
    describe(`with a daemon for each ${layout}`, () => {
      const shift = turn * Math.floor(EVERY / 2);
      for (const [number, operation] of OPERATIONS.entries())
        it(`${operation.name} is done or gone, wherever it is hit`, (t) =>
          hitAll(t, (plan) => runCase(operation, layout, plan), number + shift));

      it("a start makes all doors again after their daemons died, or the next one does", (t) =>
        hitAll(t, (plan) => runStart(layout, plan), shift));
    });

  it(`has met at least ${LEAST_CASES} faults`, (t) => {
    const seconds = Math.round((performance.now() - started) / 1_000);
    t.diagnostic(`fault run over exports: ${cases} cases in ${seconds} s`);
    assert.ok(cases >= LEAST_CASES, `${cases} cases`);
  });
});
