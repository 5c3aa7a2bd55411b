import assert from "node:assert/strict";
import { it } from "node:test";
import type { StorageError } from "@libstorage/model";
import { openExec } from "../../core/exec.js";
import { openFiles } from "../../core/files.js";
import { SILENT } from "../../core/log.js";
import type { DriverContext, StorageDriver, VolumeRecord } from "../../core/driver.js";
import { mock } from "./index.js";

const GIB = 1024 ** 3;

function contextWith(more: Partial<DriverContext> = {}): DriverContext {
  return {
    signal: new AbortController().signal,
    exec: openExec({ log: SILENT }),
    files: openFiles(),
    log: SILENT,
    progress: () => {},
    service: "mock",
    libFolder: "/nonexistent",
    ...more,
  };
}

const open = (seed = true, delayMs = 0): Promise<StorageDriver> =>
  mock.open({ seed, delayMs }, contextWith());

function volume(more: Partial<VolumeRecord> = {}): VolumeRecord {
  return {
    id: "vol-004",
    name: "x",
    sizeBytes: 10240 * GIB,
    type: "myType",
    availabilityZone: "US",
    iops: 1000,
    encrypted: false,
    fields: {},
    attachments: [],
    epoch: 0,
    source: { kind: "none" },
    ...more,
  };
}

it("starts with the reference's volumes and snapshots", async () => {
  const { volumes, snapshots } = await (await open()).list(contextWith());
  assert.deepEqual(
    volumes.map(({ id, name, sizeBytes }) => [id, name, sizeBytes / GIB]),
    [
      ["vol-000", "Volume 0", 10240],
      ["vol-001", "Volume 1", 40960],
      ["vol-002", "Volume 2", 163840],
    ],
  );
  assert.deepEqual(
    snapshots.map(({ id, volumeID, sizeBytes }) => [id, volumeID, sizeBytes / GIB]),
    [
      ["snap-000", "vol-000", 100],
      ["snap-001", "vol-001", 101],
      ["snap-002", "vol-002", 102],
    ],
  );
});

it("numbers new ids from 4 and compares them without case", async () => {
  const driver = await open();
  assert.equal(driver.ids.volumeID(driver.ids.first), "vol-004");
  assert.equal(driver.ids.snapshotID(driver.ids.first, "vol-000"), "snap-004");
  assert.equal(driver.ids.normalize?.("VOL-000"), "vol-000");
  assert.equal((await driver.volumeInspect("VOL-000", contextWith()))?.name, "Volume 0");
});

it("fails for one name, with the reference's nested error", async () => {
  const create = (await open()).volumeCreate(volume({ name: "Volume 010" }), contextWith());
  await assert.rejects(create, (error: StorageError) => {
    assert.equal(error.message, "iops required");
    assert.deepEqual(error.data, {
      inner: { inner: "bzzzzT BROKEN", msg: "size required", size: 10240 },
      iops: 1000,
    });
    return true;
  });
});

it("keeps owner and priority of the fields", async () => {
  const fields = { owner: "root", priority: "2", zzz: "1" };
  const made = await (await open()).volumeCreate(volume({ fields }), contextWith());
  assert.deepEqual(made.fields, { owner: "root", priority: "2" });
});

it("has the reference's instance and token", async () => {
  const driver = await open();
  assert.deepEqual(driver.instanceInspect({ id: "12345", driver: "mock", service: "" }), {
    instanceID: {
      id: "12345",
      driver: "",
      service: "",
      metadata: { max: 10, min: 0, rad: "cool", totally: "tubular" },
    },
    name: "mockInstance",
    providerName: "",
  });
  const attachment = {
    instanceID: { id: "12345", driver: "mock", service: "" },
    deviceName: "",
    status: "attached",
    epoch: 1,
    since: 1,
  };
  assert.equal(driver.attachToken(attachment), "1234");
});

it("tells the progress of a slow copy, which can be cancelled", async () => {
  const driver = await open(true, 50);
  const source = await driver.volumeInspect("vol-000", contextWith());
  assert.ok(source !== undefined && driver.volumeCopy !== undefined);
  const told: number[] = [];
  const progress = (done: number): void => void told.push(done);
  await driver.volumeCopy(source, volume(), contextWith({ progress }));
  assert.deepEqual(told, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  const cancel = new AbortController();
  const cancelled = driver.volumeCopy(
    source,
    volume({ id: "vol-005" }),
    contextWith({ signal: cancel.signal, progress: () => cancel.abort() }),
  );
  await assert.rejects(cancelled, { code: "cancelled" });
  assert.equal(await driver.volumeInspect("vol-005", contextWith()), undefined);
});
