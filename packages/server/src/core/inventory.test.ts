import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { mock } from "../drivers/mock/index.js";
import type { Listing, StorageDriver, VolumeRecord } from "./driver.js";
import { Inventory } from "./inventory.js";
import { Journal } from "./journal.js";
import { SILENT } from "./log.js";
import { Operations } from "./operations.js";

const scratch = mkdtempSync(join(tmpdir(), "libstorage-inventory-"));
after(() => rmSync(scratch, { recursive: true, force: true }));
let folders = 0;

function volume(id: string, name = id): VolumeRecord {
  return {
    id,
    name,
    sizeBytes: 0,
    type: "",
    availabilityZone: "",
    iops: 0,
    encrypted: false,
    fields: {},
    attachments: [],
    epoch: 0,
    source: { kind: "none" },
  };
}

interface Scene {
  readonly inventory: Inventory;
  readonly journal: Journal;
  /** Answers listings one by one, in the order in which they were asked for. */
  readonly listings: ((listing: Listing) => void)[];
  readonly fail: (error: Error) => void;
}

/** An inventory whose driver lists when the test says so. */
async function open(first: readonly VolumeRecord[], counter?: number): Promise<Scene> {
  folders += 1;
  const journal = Journal.open(join(scratch, String(folders)));
  const operations = new Operations(journal, { log: SILENT });
  if (counter !== undefined)
    await journal.append({
      phase: "end",
      operation: "x",
      service: "svc",
      task: 0,
      tx: "",
      who: "",
      via: "",
      counters: { "volume:svc": counter },
    });
  const context = operations.context(SILENT, AbortSignal.timeout(60_000));
  const real = await mock.open(
    { seed: false, delayMs: 0 },
    { ...context, service: "svc", libFolder: scratch },
  );
  const listings: Scene["listings"] = [];
  const failures: ((error: Error) => void)[] = [];
  const driver: StorageDriver = Object.assign(Object.create(real) as StorageDriver, {
    list: () =>
      new Promise<Listing>((resolve, reject) => {
        listings.push(resolve);
        failures.push(reject);
      }),
  });
  const inventory = new Inventory("svc", driver, operations, SILENT);
  inventory.load({ volumes: first, snapshots: [] });
  return { inventory, journal, listings, fail: (error) => failures.at(-1)?.(error) };
}

const signal = new AbortController().signal;
const ids = ({ volumes }: Inventory): string[] => volumes.all().map(({ id }) => id);

describe("the inventory", () => {
  it("takes over what a refresh lists", async () => {
    const { inventory, listings } = await open([volume("a")]);
    const refreshing = inventory.refresh(signal);
    listings[0]?.({ volumes: [volume("b")], snapshots: [] });
    await refreshing;
    assert.deepEqual(ids(inventory), ["b"]);
  });

  it("keeps what this server changed while a listing was under way", async () => {
    const { inventory, listings } = await open([
      volume("kept"),
      volume("removed"),
      volume("renamed"),
    ]);
    const refreshing = inventory.refresh(signal);
    inventory.putVolume(volume("made"));
    inventory.dropVolume("removed");
    inventory.putVolume(volume("renamed", "new name"));
    listings[0]?.({
      volumes: [volume("kept", "by hand"), volume("removed"), volume("renamed", "old name")],
      snapshots: [],
    });
    await refreshing;
    assert.deepEqual(ids(inventory), ["kept", "made", "renamed"]);
    assert.equal(inventory.volumes.get("kept")?.name, "by hand");
    assert.equal(inventory.volumes.get("renamed")?.name, "new name");
    assert.equal(inventory.volumes.named("old name"), undefined);
  });

  it("lists again for those who ask while a listing is under way, once for all of them", async () => {
    const { inventory, listings } = await open([]);
    const first = inventory.refresh(signal);
    const later = [inventory.refresh(signal), inventory.refresh(signal)];
    listings[0]?.({ volumes: [], snapshots: [] });
    await first;
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(listings.length, 2);
    listings[1]?.({ volumes: [volume("late")], snapshots: [] });
    await Promise.all(later);
    assert.deepEqual(ids(inventory), ["late"]);
  });

  it("stays as it is when a listing fails, and can be refreshed again", async () => {
    const { inventory, listings, fail } = await open([volume("a")]);
    const failing = inventory.refresh(signal);
    fail(new Error("no"));
    await assert.rejects(failing, /no/);
    assert.deepEqual(ids(inventory), ["a"]);
    const again = inventory.refresh(signal);
    listings[1]?.({ volumes: [], snapshots: [] });
    await again;
    assert.deepEqual(ids(inventory), []);
  });

  it("gives ids above all that the backend or the journal knows", async () => {
    const listed = await open([volume("vol-017")]);
    assert.equal(listed.inventory.nextVolumeID(), "vol-018");
    assert.equal(listed.inventory.nextVolumeID(), "vol-019");
    assert.deepEqual(listed.inventory.counter("volume"), { "volume:svc": 20 });
    assert.equal(listed.inventory.isJournalBehind, false);
    const remembered = await open([volume("vol-017")], 40);
    assert.equal(remembered.inventory.nextVolumeID(), "vol-040");
    assert.equal(remembered.inventory.isJournalBehind, false);
  });

  it("notices that the journal is older than the backend", async () => {
    const { inventory } = await open([volume("vol-017")], 10);
    assert.equal(inventory.isJournalBehind, true);
    assert.equal(inventory.nextVolumeID(), "vol-018");
  });
});
