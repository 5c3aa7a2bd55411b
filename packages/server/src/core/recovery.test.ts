import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import type { InstanceID } from "@libstorage/model";
import { mock } from "../drivers/mock/index.js";
import type { DriverModule, StorageDriver } from "./driver.js";
import { openExec } from "./exec.js";
import { openFiles } from "./files.js";
import type { EntryFields } from "./journal-entry.js";
import { SILENT } from "./log.js";
import type { Caller } from "./operations.js";
import { Storage } from "./storage.js";

const scratch = mkdtempSync(join(tmpdir(), "libstorage-recovery-"));
after(() => rmSync(scratch, { recursive: true, force: true }));
let folders = 0;

const HOST: InstanceID = { id: "host", driver: "mock", service: "" };
const REQUEST = { to: HOST, deviceName: "", force: false };
const CALLER: Caller = { who: "me", via: "test", tx: "tx" };
const CONTEXT = {
  signal: new AbortController().signal,
  log: SILENT,
  exec: openExec({ log: SILENT }),
  files: openFiles(),
  progress: () => {},
};

interface Scene {
  readonly backend: StorageDriver;
  /** Starts a server over the same journal and the same backend. */
  readonly start: () => Promise<Storage>;
}

/** A backend that outlives the server. */
async function scene(): Promise<Scene> {
  folders += 1;
  const journalFolder = join(scratch, String(folders));
  mkdirSync(journalFolder);
  const config = { seed: false, delayMs: 0 };
  const backend = await mock.open(config, { ...CONTEXT, service: "svc", libFolder: scratch });
  const driver: DriverModule = { ...mock, open: async () => backend };
  const settings = { shareable: false, uniqueNames: false };
  return {
    backend,
    start: () =>
      Storage.open({
        services: [{ name: "svc", driver, config, settings }],
        journalFolder,
        libFolder: scratch,
        log: SILENT,
      }),
  };
}

/** Leaves an operation in the journal that was begun and never ended. */
async function begin(storage: Storage, more: Partial<EntryFields>): Promise<void> {
  const base = { operation: "", service: "svc", task: 900, tx: "tx", who: "me", via: "test" };
  await storage.journal.append({ ...base, ...more, phase: "intent" });
}

async function restarted(start: Scene["start"]): Promise<Storage> {
  const storage = await start();
  await storage.recovered();
  return storage;
}

describe("recovery", () => {
  it("removes what was being made", async () => {
    const { backend, start } = await scene();
    const first = await start();
    const { id } = await first.service("svc").volumeCreate({ name: "x", fields: {} }, CALLER);
    await begin(first, { operation: "volumeCreate", volumeID: id });
    await first.close();
    const second = await restarted(start);
    assert.equal(await backend.volumeInspect(id, CONTEXT), undefined);
    assert.deepEqual(second.journal.openIntents(), []);
    assert.equal(second.service("svc").inventory.volumes.size, 0);
    await second.close();
  });

  it("keeps what was made and used since, whatever the journal says", async () => {
    const { start } = await scene();
    const first = await start();
    const service = first.service("svc");
    const { id } = await service.volumeCreate({ name: "x", fields: {} }, CALLER);
    await service.volumeAttach(id, REQUEST, CALLER);
    await service.volumeDetach(id, HOST, false, CALLER);
    await begin(first, { operation: "volumeCreate", volumeID: id });
    await first.close();
    const second = await restarted(start);
    assert.equal(second.service("svc").volume(id).epoch, 1);
    assert.deepEqual(second.journal.openIntents(), []);
    await second.close();
  });

  it("touches nothing when the backend is newer than the journal", async () => {
    const { backend, start } = await scene();
    const first = await start();
    const { id } = await first.service("svc").volumeCreate({ name: "x", fields: {} }, CALLER);
    await begin(first, { operation: "volumeRemove", volumeID: id });
    await first.close();
    const made = await backend.volumeInspect(id, CONTEXT);
    assert.ok(made !== undefined);
    await backend.volumeCreate({ ...made, id: "vol-100", name: "newer" }, CONTEXT);
    const second = await restarted(start);
    assert.deepEqual(
      second
        .service("svc")
        .inventory.volumes.all()
        .map((volume) => volume.id),
      [id, "vol-100"],
    );
    assert.deepEqual(second.journal.openIntents(), []);
    assert.equal(second.operations.tasks.find(900)?.error?.code, "data-loss");
    await second.close();
  });

  it("completes removals, detaches and expansions, and answers a repeated request with that", async () => {
    const { start } = await scene();
    const first = await start();
    const service = first.service("svc");
    const ids: string[] = [];
    for (const name of ["removed", "detached", "expanded"])
      ids.push((await service.volumeCreate({ name, fields: {} }, CALLER)).id);
    const [removed = "", detached = "", expanded = ""] = ids;
    await service.volumeAttach(detached, REQUEST, CALLER);
    const sizeBytes = 8 * 1024 ** 3;
    await begin(first, { operation: "volumeRemove", volumeID: removed, task: 901 });
    await begin(first, { operation: "volumeDetach", volumeID: detached, holder: HOST, task: 902 });
    await begin(first, { operation: "volumeExpand", volumeID: expanded, sizeBytes, task: 903 });
    await first.close();
    const second = await restarted(start);
    const { inventory } = second.service("svc");
    assert.equal(inventory.volumes.get(removed), undefined);
    assert.deepEqual(inventory.volumes.get(detached)?.attachments, []);
    assert.equal(inventory.volumes.get(expanded)?.sizeBytes, sizeBytes);
    for (const task of [901, 902, 903])
      assert.equal(second.operations.tasks.find(task)?.state, "success");
    await second.close();
  });

  it("takes a hold back that was being given, and no other's", async () => {
    const { start } = await scene();
    const first = await start();
    const service = first.service("svc");
    const other = { ...HOST, id: "other" };
    const { id } = await service.volumeCreate({ name: "x", fields: {} }, CALLER);
    await service.volumeAttach(id, { ...REQUEST, to: other }, CALLER);
    await begin(first, { operation: "volumeAttach", volumeID: id, holder: HOST });
    await first.close();
    const second = await restarted(start);
    const holders = second.service("svc").volume(id).attachments;
    assert.deepEqual(
      holders.map(({ instanceID }) => instanceID.id),
      ["other"],
    );
    await second.close();
  });

  it("that fails keeps others from the object until it succeeds, and from nothing else", async () => {
    const { backend, start } = await scene();
    const first = await start();
    const { id } = await first.service("svc").volumeCreate({ name: "x", fields: {} }, CALLER);
    await begin(first, { operation: "volumeDetach", volumeID: id, holder: HOST, force: true });
    await first.service("svc").volumeAttach(id, REQUEST, CALLER);
    await first.close();
    const detach = backend.volumeDetach.bind(backend);
    backend.volumeDetach = () => Promise.reject(new Error("the target does not answer"));
    const second = await restarted(start);
    const service = second.service("svc");
    assert.equal(second.operations.stuck.size, 1);
    await assert.rejects(service.volumeExpand(id, 2 ** 40, CALLER), {
      code: "unavailable",
      message: /an earlier volumeDetach of vol-004 failed .* the target does not answer/,
    });
    await service.volumeCreate({ name: "another", fields: {} }, CALLER);
    backend.volumeDetach = detach;
    assert.equal((await service.volumeExpand(id, 2 ** 40, CALLER)).sizeBytes, 2 ** 40);
    assert.deepEqual(service.volume(id).attachments, []);
    assert.equal(second.operations.stuck.size, 0);
    await second.close();
  });
});
