/**
 * The fault run over an exporter: each operation is hit once at each of its commands, kernel writes and journal entries.
 * Whatever happens, nobody can get in whom no record names and everybody can whom one names; and in the end nothing is
 * left.
 */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { it } from "node:test";
import { CountedFaults } from "@libstorage/server";
import type { FaultMode } from "@libstorage/server";
import { WithoutCheck } from "../faults/world.js";
import { StorageSession } from "./storage-session.js";
import type { Holder, HostOptions, SessionOptions } from "./storage-session.js";

const MIB = 1024 ** 2;
const OLD: Holder = { id: "old", initiatorName: "iqn.2026-01.local.test:old" };
const NEW: Holder = { id: "new", initiatorName: "iqn.2026-01.local.test:new" };

export interface ExporterWorld {
  /** How it is configured, for people. */
  readonly name: string;
  readonly exporter: string;
  /** Below it each case has a folder. */
  readonly scratch: string;
  config(folder: string): Promise<object>;
  /** `TARGET INITIATOR` of everybody who can get in to a target that is ours, as the target itself tells. */
  exported(folder: string): Promise<readonly string[]>;
  /** Everything of ours that is there, exported or half made. */
  left(folder: string): Promise<readonly string[]>;
  /** As a reboot or a crash of the target does. */
  lose(folder: string): Promise<void>;
}

interface Operation {
  readonly name: string;
  readonly isHeld: boolean;
  /** Whether the target is lost before, so that the start makes everything again. */
  readonly isLost?: boolean;
  run(session: StorageSession, id: string): Promise<unknown>;
}

const OPERATIONS: readonly Operation[] = [
  { name: "attach", isHeld: false, run: (session, id) => session.attach(id, NEW) },
  { name: "preempting attach", isHeld: true, run: (session, id) => session.attach(id, NEW, true) },
  { name: "detach", isHeld: true, run: (session, id) => session.detach(id, OLD) },
  { name: "expand", isHeld: true, run: (session, id) => session.expand(id, 16 * MIB) },
  { name: "removal by force", isHeld: true, run: (session, id) => session.remove(id) },
];

/** Its points are those of the opening. */
const RESTART = { name: "restart after the target was lost", isHeld: true, isLost: true } as const;

class Case {
  readonly #world: ExporterWorld;
  readonly folder: string;
  readonly #options: SessionOptions;

  private constructor(world: ExporterWorld, folder: string, options: SessionOptions) {
    this.#world = world;
    this.folder = folder;
    this.#options = options;
  }

  static async make(world: ExporterWorld): Promise<Case> {
    const folder = mkdtempSync(join(world.scratch, "c"));
    const config = await world.config(folder);
    return new Case(world, folder, { folder, kind: "file", exporter: world.exporter, config });
  }

  open(faults?: CountedFaults): Promise<StorageSession> {
    const options: HostOptions = { faults: new WithoutCheck(faults) };
    return StorageSession.open(this.#options, options);
  }

  /** Nobody gets in whom no record names, and everybody does whom one names. */
  async check(session: StorageSession): Promise<void> {
    const named = session.service.inventory.volumes
      .all()
      .flatMap(({ attachments }) => attachments)
      .map(({ fields = {} }) => `${fields["iqn"]} ${fields["initiator"]}`);
    const exported = await this.#world.exported(this.folder);
    assert.ok(new Set(named).size <= 1, "two holders");
    for (const one of exported) assert.ok(named.includes(one), `${one} gets in, and has no record`);
    assert.deepEqual(exported.toSorted(), named.toSorted());
  }

  async end(session: StorageSession): Promise<void> {
    for (const { id } of session.service.inventory.volumes.all()) await session.remove(id);
    assert.deepEqual(session.storage.journal.openIntents(), []);
    await session.close();
    assert.deepEqual(await this.#world.left(this.folder), [], "left in the end");
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** @returns how many points the operation passes */
async function runCase(
  world: ExporterWorld,
  operation: Operation,
  at: number,
  mode: FaultMode,
): Promise<number> {
  const one = await Case.make(world);
  const faults = new CountedFaults(at, mode);
  faults.disarm();
  let session = await one.open(faults);
  const id = await session.create(8 * MIB);
  if (operation.isHeld) await session.attach(id, OLD);
  faults.arm();
  await operation.run(session, id).catch(() => {});
  const { passed, isDead } = faults;
  if (isDead) {
    await session.close().catch(() => {});
    await rm(join(one.folder, "journal", "closed"), { force: true });
    session = await one.open();
  } else faults.disarm();
  await one.check(session);
  // Once more: it is done now, or was before.
  await operation.run(session, id).catch((error: Error) => {
    if (!/not found/.test(error.message)) throw error;
  });
  await one.check(session);
  await one.end(session);
  return passed;
}

async function runRestart(world: ExporterWorld, at: number, mode: FaultMode): Promise<number> {
  const one = await Case.make(world);
  const first = await one.open();
  const id = await first.create(8 * MIB);
  await first.attach(id, OLD);
  await first.close();
  await world.lose(one.folder);
  const faults = new CountedFaults(at, mode);
  const begun = await one.open(faults).catch(() => undefined);
  const { passed } = faults;
  faults.disarm();
  await begun?.close().catch(() => {});
  const session = await one.open();
  await one.check(session);
  await one.end(session);
  return passed;
}

const MODES: readonly FaultMode[] = ["fail", "lost-answer", "kill-after"];

interface Planned {
  readonly at: number;
  readonly mode: FaultMode;
}

/** Each so manieth point, beginning with another for each way to fail. */
function planned(points: number, every: number, first: number): Planned[] {
  return MODES.flatMap((mode, index) => {
    const faults: Planned[] = [];
    for (let at = 1 + ((first + index) % every); at <= points; at += every)
      faults.push({ at, mode });
    return faults;
  });
}

/** `FAULTS_EVERY=1` runs all cases. @param usual of all cases only each so manieth is run else */
export function everyOf(usual: number): number {
  return Number(process.env["FAULTS_EVERY"] ?? usual);
}

/** How long the run may take, when so many of its cases are run as a rule. */
export function limitOf(usual: number): number {
  return everyOf(usual) < usual ? 7_200_000 : 840_000;
}

/**
 * To be called inside a `describe`.
 * @param worlds those that are configured in another way share the sample: each gets its part of it
 */
export function exporterFaults(
  worlds: readonly (() => ExporterWorld)[],
  usual: number,
  least: number,
): void {
  let cases = 0;
  const every = everyOf(usual);
  const apart = every === 1 ? 1 : every * worlds.length;
  for (const operation of [...OPERATIONS, RESTART])
    it(`${operation.name}: nobody gets in whom no record names, wherever it is hit`, async (t) => {
      const failures: string[] = [];
      for (const [turn, make] of worlds.entries()) {
        const world = make();
        const run = ({ at, mode }: Planned): Promise<number> =>
          "run" in operation ? runCase(world, operation, at, mode) : runRestart(world, at, mode);
        const points = await run({ at: 0, mode: "fail" });
        assert.ok(points > 5, "an operation passes its doors");
        const plans = planned(points, apart, turn * every);
        for (const plan of plans)
          await run(plan).catch((error: unknown) =>
            failures.push(
              `${world.name}, ${plan.mode} at ${plan.at}: ${error instanceof Error ? error.stack : ""}`,
            ),
          );
        cases += plans.length;
        t.diagnostic(`${world.name}: ${points} points, ${plans.length} cases`);
      }
      assert.equal(failures.length, 0, failures.slice(0, 5).join("\n\n"));
    });
  it(`has met at least ${least} faults`, () => assert.ok(cases >= least, `${cases}`));
}
