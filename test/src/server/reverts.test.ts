/** The core's part of a revert and of an update: order, refusals, recovery. The driver's is in the contract. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, beforeEach, describe, it } from "node:test";
import { DRIVERS, SILENT } from "@libstorage/server";
import type { DriverModule, EntryFields, Storage } from "@libstorage/server";
import { makeScratch } from "../faults/folders.js";
import { HOST_A, SERVICE, caller, openWorld } from "../faults/world.js";

const scratch = makeScratch("reverts");
let worlds = 0;

describe("reverts and updates", () => {
  let folder: string;
  let storage: Storage;
  let data: string;
  let volumeID: string;
  let snapshotID: string;

  const service = () => storage.service(SERVICE);
  const content = (): string => readFileSync(data, "utf8");
  const reopened = async (): Promise<void> => {
    await storage.close();
    storage = await openWorld(folder);
    await storage.recovered();
  };
  /** As a server leaves it that was killed after the intent. */
  const begin = async (more: Partial<EntryFields>): Promise<void> => {
    const base = { operation: "", service: SERVICE, task: 900, tx: "t", who: "me", via: "test" };
    await storage.journal.append({ ...base, ...more, phase: "intent" });
  };

  beforeEach(async () => {
    worlds += 1;
    folder = join(scratch.path, String(worlds));
    await mkdir(join(folder, "journal"), { recursive: true });
    storage = await openWorld(folder);
    ({ id: volumeID } = await service().volumeCreate({ name: "web", fields: {} }, caller()));
    data = join(folder, "root", "vol", volumeID, "file");
    writeFileSync(data, "before");
    const snapshot = await service().volumeSnapshot(volumeID, { name: "s", fields: {} }, caller());
    snapshotID = snapshot.id;
    writeFileSync(data, "after");
  });
  afterEach(() => storage.close());
  after(() => scratch.remove());

  it("a revert is in the journal, with the volume and where it goes back to", async () => {
    await service().volumeRevert(volumeID, snapshotID, caller());
    assert.equal(content(), "before");
    const entries = [...storage.journal.since(0)].filter((one) => one.operation === "volumeRevert");
    assert.deepEqual(
      entries.map(({ phase, volumeID: of, from }) => ({ phase, of, from })),
      ["intent", "end"].map((phase) => ({ phase, of: volumeID, from: snapshotID })),
    );
  });

  it("a revert that was begun is done at the next start", async () => {
    await begin({ operation: "volumeRevert", volumeID, from: snapshotID });
    await reopened();
    assert.equal(content(), "before");
    assert.deepEqual(storage.journal.openIntents(), []);
  });

  it("a revert that was begun is given up when its snapshot is gone", async () => {
    await begin({ operation: "volumeRevert", volumeID, from: "vfs-000-099" });
    await reopened();
    assert.equal(content(), "after");
    assert.deepEqual(storage.journal.openIntents(), []);
    assert.equal(service().volume(volumeID).broken, undefined);
  });

  it("a volume whose data have no name at the start gets them back, with a journal and without", async () => {
    const shelf = join(folder, "root", "vol");
    const record = readFileSync(join(shelf, `${volumeID}.json`), "utf8");
    renameSync(join(shelf, volumeID), join(shelf, `.next-${volumeID}`));
    writeFileSync(join(shelf, `.next-${volumeID}.json`), record);
    await storage.close();
    storage = await openWorld(folder);
    for (let left = 100; left > 0 && !existsSync(data); left -= 1)
      await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(content(), "after");
    await service().inventory.refresh(AbortSignal.timeout(10_000));
    assert.equal(service().volume(volumeID).broken, undefined);
  });

  it("a snapshot is not removed while its volume goes back to it", async () => {
    await storage.close();
    const order: string[] = [];
    const slow: DriverModule = {
      ...DRIVERS.vfs,
      open: async (...args) => {
        const driver = await DRIVERS.vfs.open(...args);
        const { reverts } = driver;
        assert.ok(reverts !== undefined);
        const volumeRevert: typeof reverts.volumeRevert = async (...revert) => {
          order.push("begun");
          await new Promise((resolve) => setTimeout(resolve, 100));
          const reverted = await reverts.volumeRevert(...revert);
          order.push("reverted");
          return reverted;
        };
        Object.defineProperty(driver, "reverts", { value: { ...reverts, volumeRevert } });
        return driver;
      },
    };
    storage = await openWorld(folder, undefined, slow);
    const reverting = service().volumeRevert(volumeID, snapshotID, caller());
    while (order.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await service()
      .snapshotRemove(snapshotID, caller())
      .then(() => order.push("removed"));
    await reverting;
    assert.deepEqual(order, ["begun", "reverted", "removed"]);
    assert.equal(content(), "before");
  });

  it("a revert of a snapshot that is gone when its turn comes is refused, and changes nothing", async () => {
    const removing = service().snapshotRemove(snapshotID, caller());
    const reverting = service().volumeRevert(volumeID, snapshotID, caller());
    await removing;
    await assert.rejects(reverting, { code: "not-found" });
    assert.equal(content(), "after");
    assert.deepEqual(storage.journal.openIntents(), []);
  });

  it("what is held is not reverted, and a driver that cannot says so with its name", async () => {
    await service().volumeAttach(volumeID, { to: HOST_A, deviceName: "", force: false }, caller());
    await assert.rejects(service().volumeRevert(volumeID, snapshotID, caller()), {
      code: "failed-precondition",
      message: /host-a/,
    });
    await service().volumeDetach(volumeID, HOST_A, false, caller());
    await storage.close();
    const without: DriverModule = {
      ...DRIVERS.vfs,
      open: async (...args) => {
        const driver = await DRIVERS.vfs.open(...args);
        Object.defineProperty(driver, "reverts", { value: undefined });
        return driver;
      },
    };
    storage = await openWorld(folder, undefined, without);
    assert.ok(!service().abilities.includes("revert"));
    await assert.rejects(service().volumeRevert(volumeID, snapshotID, caller()), {
      code: "unimplemented",
      message: /^not supported: the vfs driver/,
    });
    assert.equal(content(), "after");
  });

  it("a volume that was made smaller grows to what its snapshot needs", async () => {
    const { inventory, driver } = service();
    const volume = service().volume(volumeID);
    const context = storage.operations.context(SILENT, AbortSignal.timeout(10_000));
    const snapshot = service().snapshot(snapshotID);
    inventory.putSnapshot({ ...snapshot, sizeBytes: volume.sizeBytes * 3 });
    const reverted = await service().volumeRevert(volumeID, snapshotID, caller());
    assert.equal(reverted.sizeBytes, volume.sizeBytes * 3);
    assert.deepEqual(await driver.volumeInspect(volumeID, context), reverted);
  });

  it("an update that was begun is done at the next start", async () => {
    const change = { name: "www", fields: { a: "b" } };
    await begin({ operation: "volumeUpdate", volumeID, change });
    await reopened();
    const { name, fields } = service().volume(volumeID);
    assert.deepEqual({ name, fields }, change);
  });

  it("an update that changes nothing does no work, and names every thing that cannot change", async () => {
    const before = storage.journal.lastSeq;
    await service().volumeUpdate(volumeID, { name: "web", fields: { a: null } }, caller());
    assert.equal(storage.journal.lastSeq, before);
    await assert.rejects(service().volumeUpdate(volumeID, { type: "x", iops: 2 }, caller()), {
      code: "unimplemented",
      message: /vfs driver cannot change type and iops .* name, fields/,
    });
  });

  it("a name that is taken is not given twice where names are unique", async () => {
    await service().volumeCreate({ name: "db", fields: {} }, caller());
    service().settings = { shareable: false, uniqueNames: true };
    await assert.rejects(service().volumeUpdate(volumeID, { name: "db" }, caller()), {
      code: "already-exists",
    });
    const same = await service().volumeUpdate(volumeID, { name: "web" }, caller());
    assert.equal(same.name, "web");
    assert.equal((await service().volumeUpdate(volumeID, { name: "Web" }, caller())).name, "Web");
  });
});
