/**
 * Half states. Each operation is cut at each of its commands and file changes in turn: it fails there,
 * hangs until it is cancelled, succeeds unseen, or the server dies before or after it.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CountedFaults } from "@libstorage/server";
import type { FaultMode, OpContext, VolumeRecord } from "@libstorage/server";
import {
  attachmentOf,
  contextOf,
  Fixture,
  needsCopy,
  needsExpand,
  needsReverts,
  needsSnapshotCopy,
  needsSnapshots,
  OTHER_SIZE,
  snapshotOf,
} from "./fixture.js";
import type { Case } from "./fixture.js";

interface Operation {
  readonly name: string;
  /** What it makes or removes, where that is no volume. */
  readonly of?: "snapshot";
  readonly unless?: Case["unless"];
  /** Prepares what the operation works on. */
  prepare(fixture: Fixture): Promise<Prepared>;
}

interface Prepared {
  readonly run: (context: OpContext) => Promise<unknown>;
  /** What the operation makes, where it makes something. */
  readonly makes?: string;
  /** What it removes, where it removes something. */
  readonly removes?: string;
  /** The volume that goes back to a snapshot. */
  readonly reverts?: string;
  /** What must hold of the data, however it went. */
  readonly check?: (fixture: Fixture) => void;
}

/** A volume with something in it, which no operation may harm. */
async function sourceIn(fixture: Fixture): Promise<VolumeRecord> {
  const volume = await fixture.create(0);
  if (volume.source.kind === "directory")
    writeFileSync(join(volume.source.path, "file"), "some data");
  return volume;
}

const OPERATIONS: readonly Operation[] = [
  {
    name: "create",
    async prepare(fixture) {
      const wanted = fixture.volume(1);
      return {
        makes: wanted.id,
        run: (context) => fixture.driver.volumeCreate(wanted, context),
      };
    },
  },
  {
    name: "remove",
    async prepare(fixture) {
      const { id } = await sourceIn(fixture);
      return { removes: id, run: (context) => fixture.driver.volumeRemove(id, context) };
    },
  },
  {
    name: "update",
    async prepare(fixture) {
      const wanted = { ...(await sourceIn(fixture)), name: "new" };
      return { run: (context) => fixture.driver.volumeUpdate(wanted, context) };
    },
  },
  {
    name: "attach",
    async prepare(fixture) {
      const volume = await sourceIn(fixture);
      const attachment = attachmentOf("host-a");
      return { run: (context) => fixture.driver.volumeAttach(volume, attachment, context) };
    },
  },
  {
    name: "detach",
    async prepare(fixture) {
      const held = await fixture.attach(await sourceIn(fixture), "host-a");
      const { instanceID } = attachmentOf("host-a");
      return { run: (context) => fixture.driver.volumeDetach(held, instanceID, true, context) };
    },
  },
  {
    name: "expand",
    unless: needsExpand,
    async prepare(fixture) {
      const volume = await sourceIn(fixture);
      return {
        run: async (context) => fixture.driver.volumeExpand?.(volume, OTHER_SIZE, context),
      };
    },
  },
  {
    name: "revert",
    unless: needsReverts,
    async prepare(fixture) {
      const volume = await sourceIn(fixture);
      const snapshot = await fixture.snapshot(0, volume);
      const path = volume.source.kind === "directory" ? join(volume.source.path, "file") : "";
      if (path !== "") writeFileSync(path, "other data");
      return {
        reverts: volume.id,
        run: (context) => fixture.reverts.volumeRevert(volume, snapshot, context),
        check: () => {
          if (path === "") return;
          const text = readFileSync(path, "utf8");
          assert.ok(text === "some data" || text === "other data", `the data are ${text}`);
        },
      };
    },
  },
  {
    name: "copy",
    unless: needsCopy,
    async prepare(fixture) {
      const source = await sourceIn(fixture);
      const wanted = fixture.volume(1);
      return {
        makes: wanted.id,
        run: (context) => fixture.copyVolume(source, wanted, context),
      };
    },
  },
  {
    name: "snapshot",
    of: "snapshot",
    unless: needsSnapshots,
    async prepare(fixture) {
      const source = await sourceIn(fixture);
      const wanted = snapshotOf(fixture.driver, 0, source);
      return {
        makes: wanted.id,
        run: (context) => fixture.snapshots.snapshotCreate(source, wanted, context),
      };
    },
  },
  {
    name: "snapshot remove",
    of: "snapshot",
    unless: needsSnapshots,
    async prepare(fixture) {
      const { id } = await fixture.snapshot(0, await sourceIn(fixture));
      return { removes: id, run: (context) => fixture.snapshots.snapshotRemove(id, context) };
    },
  },
  {
    name: "snapshot copy",
    of: "snapshot",
    unless: needsSnapshotCopy,
    async prepare(fixture) {
      const source = await sourceIn(fixture);
      const snapshot = await fixture.snapshot(0, source);
      const wanted = snapshotOf(fixture.driver, 1, source);
      return {
        makes: wanted.id,
        run: (context) => fixture.copySnapshot(snapshot, wanted, context),
      };
    },
  },
  {
    name: "create from snapshot",
    unless: needsSnapshots,
    async prepare(fixture) {
      const snapshot = await fixture.snapshot(0, await sourceIn(fixture));
      const wanted = fixture.volume(1);
      return {
        makes: wanted.id,
        run: (context) => fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, context),
      };
    },
  },
];

/** Records by id, broken ones as such. */
async function statesOf(fixture: Fixture): Promise<Map<string, string>> {
  const { volumes, snapshots } = await fixture.list();
  return new Map(
    [...volumes, ...snapshots].map(({ id, broken }) => [
      id,
      broken === undefined ? "whole" : "broken",
    ]),
  );
}

interface Cut {
  readonly fixture: Fixture;
  readonly operation: Operation;
  readonly prepared: Prepared;
  readonly hasFailed: boolean;
  readonly before: ReadonlyMap<string, string>;
}

/** Runs an operation with a fault; one that hangs is cancelled. @returns whether it failed */
async function runWith(
  faults: CountedFaults,
  prepared: Prepared,
  isHanging: () => boolean,
): Promise<boolean> {
  const cancel = new AbortController();
  const timer = setInterval(() => {
    if (isHanging()) cancel.abort();
  }, 5);
  try {
    await prepared.run(contextOf({ faults, signal: cancel.signal }));
    return false;
  } catch {
    return true;
  } finally {
    clearInterval(timer);
  }
}

/** As recovery does: what was to be made is taken away, and what was to be removed is removed again. */
async function removeOwn({ fixture, operation: { of }, prepared }: Cut): Promise<void> {
  const id = prepared.makes ?? prepared.removes;
  if (id === undefined) return;
  if (of === "snapshot") await fixture.snapshots.snapshotRemove(id, contextOf());
  else await fixture.driver.volumeRemove(id, contextOf());
}

/**
 * Runs an operation once for each point it passes, each time in a new place and cut at the next point.
 * @param check looks at what is left; after it all must be removable
 */
async function cutEverywhere(
  { harness }: Fixture,
  operation: Operation,
  mode: FaultMode,
  check: (cut: Cut) => Promise<void>,
): Promise<void> {
  for (let at = 1; ; at += 1) {
    const fixture = await Fixture.open(harness);
    try {
      const prepared = await operation.prepare(fixture);
      const before = await statesOf(fixture);
      const faults = new CountedFaults(at, mode);
      const isHanging = (): boolean => mode === "hang" && faults.passed >= at;
      const hasFailed = await runWith(faults, prepared, isHanging);
      const cut = { fixture, operation, prepared, hasFailed, before };
      await check(cut);
      await removeOwn(cut);
      await fixture.empty();
      if (faults.passed >= at) continue;
      assert.ok(at > 1, "the operation passes no door");
      assert.ok(!hasFailed, "without a fault the operation succeeds");
      return;
    } finally {
      await fixture.place.close();
    }
  }
}

/** Nothing but what the operation is about has changed. */
async function checkOthers({ fixture, prepared, before }: Cut): Promise<Map<string, string>> {
  const states = await statesOf(fixture);
  const own = prepared.makes ?? prepared.removes;
  for (const [id, state] of before) if (id !== own) assert.equal(states.get(id), state, id);
  prepared.check?.(fixture);
  return states;
}

async function checkFailed(cut: Cut): Promise<void> {
  const states = await checkOthers(cut);
  const { makes, removes } = cut.prepared;
  if (makes !== undefined)
    assert.equal(states.get(makes), cut.hasFailed ? undefined : "whole", "half made");
  if (removes !== undefined && !cut.hasFailed) assert.equal(states.get(removes), undefined);
}

async function checkKilled(cut: Cut): Promise<void> {
  await cut.fixture.reopen();
  const { reverts } = cut.prepared;
  if (reverts !== undefined) await cut.fixture.reverts.volumeRevertSettle(reverts, contextOf());
  const states = await checkOthers(cut);
  const { makes, removes } = cut.prepared;
  if (makes === undefined && removes === undefined)
    assert.ok([...states.values()].every((state) => state === "whole"));
}

/** After a restart the same operation goes through. */
async function checkAgain(cut: Cut): Promise<void> {
  await checkKilled(cut);
  const { run, makes, removes } = cut.prepared;
  // Data without its record is never written over: recovery takes it away first.
  const isBroken = makes !== undefined && (await statesOf(cut.fixture)).get(makes) === "broken";
  if (isBroken) await removeOwn(cut);
  await run(contextOf());
  const states = await checkOthers(cut);
  if (makes !== undefined) assert.equal(states.get(makes), "whole");
  if (removes !== undefined) assert.equal(states.get(removes), undefined);
}

function casesOf(operation: Operation): Case[] {
  const { unless } = operation;
  const of = (title: string, mode: FaultMode, check: (cut: Cut) => Promise<void>): Case => ({
    title: `${operation.name} ${title}`,
    ...(unless !== undefined && { unless }),
    run: (fixture) => cutEverywhere(fixture, operation, mode, check),
  });
  return [
    of("that fails at any point leaves nothing half done", "fail", checkFailed),
    of("whose step succeeds unseen leaves nothing half done", "lost-answer", checkFailed),
    of("that hangs anywhere is cancelled and leaves nothing half done", "hang", checkFailed),
    of("killed before any point can be removed", "kill-before", checkKilled),
    of("killed after any point can be removed", "kill-after", checkKilled),
    of("killed before any point can be done again", "kill-before", checkAgain),
    of("killed after any point can be done again", "kill-after", checkAgain),
  ];
}

export const FAULT_CASES: readonly Case[] = OPERATIONS.flatMap(casesOf);
