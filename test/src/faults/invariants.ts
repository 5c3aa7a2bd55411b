/** What must hold whenever the dust has settled, whatever went wrong before. */
import assert from "node:assert/strict";
import { SILENT, hashOf } from "@libstorage/server";
import type { JournalEntry, Storage } from "@libstorage/server";
import { SERVICE } from "./world.js";
import type { World, WorldState } from "./world.js";

/** The state without what a repeat may change: ids that were given anew, and epochs, which only grow. */
export function shapeOf(state: WorldState): unknown {
  return [...state]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, { sizeGiB, holders, data }]) => ({ key, sizeGiB, holders, data }));
}

export function isSameShape(a: WorldState, b: WorldState): boolean {
  return JSON.stringify(shapeOf(a)) === JSON.stringify(shapeOf(b));
}

/** The journal: no intent open, each closed once, numbers climb, the chain holds, no event held back. */
export function checkJournal(storage: Storage): void {
  const { journal, events, stuck } = storage.operations;
  assert.equal(stuck.size, 0, "operations are stuck");
  assert.deepEqual(journal.openIntents(), [], "intents are open");
  const closings = new Map<number, number>();
  let before: JournalEntry | undefined;
  for (const entry of journal.since(0)) {
    if (entry.intent !== undefined)
      closings.set(entry.intent, (closings.get(entry.intent) ?? 0) + 1);
    if (before !== undefined) {
      assert.ok(entry.seq > before.seq, "the journal's numbers do not climb");
      if (entry.seq === before.seq + 1)
        assert.equal(
          entry.prev,
          hashOf(JSON.stringify(before)),
          `the chain breaks at ${entry.seq}`,
        );
    }
    if (entry.phase === "intent") closings.set(entry.seq, closings.get(entry.seq) ?? 0);
    before = entry;
  }
  for (const [seq, count] of closings)
    assert.equal(count, 1, `intent ${seq} is closed ${count} times`);
  assert.equal(events.lastID, journal.lastSeq, "an event is held back");
}

/** The inventory equals what the backend lists and what stands on the disk. */
async function checkInventory(storage: Storage, state: WorldState): Promise<void> {
  const { inventory, driver } = storage.service(SERVICE);
  const context = storage.operations.context(SILENT, AbortSignal.timeout(10_000));
  const listing = await driver.list(context);
  assert.deepEqual(inventory.volumes.all(), listing.volumes, "the inventory's volumes");
  assert.deepEqual(inventory.snapshots.all(), listing.snapshots, "the inventory's snapshots");
  const seen = [...listing.volumes, ...listing.snapshots];
  assert.deepEqual(
    seen.map(({ id }) => id).toSorted(),
    [...state.values()].map(({ id }) => id).toSorted(),
    "listing and disk differ",
  );
  for (const record of seen) assert.equal(record.broken, undefined, `${record.id} is broken`);
}

/** No second writer, and no epoch that fell. */
function checkHolders(before: WorldState, state: WorldState): void {
  for (const [key, object] of state) {
    assert.ok(object.holders.length <= 1, `${key} has two holders: ${object.holders.join(", ")}`);
    const earlier = before.get(key);
    if (earlier !== undefined)
      assert.ok(object.epoch >= earlier.epoch, `the epoch of ${key} fell to ${object.epoch}`);
  }
}

/** @returns what stands there */
export async function checkInvariants(
  world: World,
  storage: Storage,
  before: WorldState,
): Promise<WorldState> {
  const state = await world.read();
  checkHolders(before, state);
  checkJournal(storage);
  await checkInventory(storage, state);
  return state;
}
