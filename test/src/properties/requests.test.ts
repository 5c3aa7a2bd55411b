/** The schemas of requests, and ids, given random JSON. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  MAX_NAME_LENGTH,
  MAX_SIZE_GIB,
  SnapshotCopyRequest,
  VolumeAttachRequest,
  VolumeCopyRequest,
  VolumeCreateRequest,
  VolumeDetachRequest,
  VolumeExpandRequest,
  VolumeSnapshotRequest,
} from "@libstorage/model";
import { DRIVERS, SILENT, Storage } from "@libstorage/server";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { makeScratch } from "../faults/folders.js";

const SCHEMAS: Readonly<Record<string, v.GenericSchema>> = {
  VolumeCreateRequest,
  VolumeCopyRequest,
  VolumeSnapshotRequest,
  VolumeAttachRequest,
  VolumeDetachRequest,
  VolumeExpandRequest,
  SnapshotCopyRequest,
};

const MEMBERS = [
  "name",
  "volumeName",
  "snapshotName",
  "destinationID",
  "size",
  "iops",
  "type",
  "encrypted",
  "force",
  "opts",
  "nextDeviceName",
  "__proto__",
  "constructor",
  "other",
];

const anyObject = fc.dictionary(fc.constantFrom(...MEMBERS), fc.jsonValue(), { maxKeys: 5 });

describe("request schemas", () => {
  for (const [name, schema] of Object.entries(SCHEMAS))
    it(`${name} accepts or refuses any JSON, and never throws`, () => {
      fc.assert(
        fc.property(fc.oneof(fc.jsonValue(), anyObject), (value) => {
          const result = v.safeParse(schema, value);
          if (!result.success) return;
          // What it lets through is what was given, with nothing unknown in it.
          const given = new Set(Object.keys(value as object));
          for (const key of Object.keys(result.output as object)) assert.ok(given.has(key), key);
        }),
        { numRuns: 500 },
      );
    });

  it("refuse every size that is no whole number of GiB in range", () => {
    const wrong = fc.oneof(
      fc.integer({ max: -1 }),
      fc.double({ noInteger: true }),
      fc.integer({ min: MAX_SIZE_GIB + 1, max: Number.MAX_SAFE_INTEGER }),
      fc.constantFrom(2 ** 63, Number.MAX_VALUE, NaN, Infinity, "1", null, true, [1], {}),
    );
    fc.assert(
      fc.property(wrong, (size) => {
        assert.equal(v.safeParse(VolumeCreateRequest, { name: "x", size }).success, false);
        assert.equal(v.safeParse(VolumeExpandRequest, { size }).success, false);
      }),
    );
  });

  it("accept every name that is well-formed, short and without control characters, and no other", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 300 }), (name) => {
        const isFine =
          name.length <= MAX_NAME_LENGTH && !/\p{Cs}/u.test(name) && !/\p{Cc}/u.test(name);
        assert.equal(v.safeParse(VolumeCreateRequest, { name }).success, isFine);
      }),
      { numRuns: 1000 },
    );
  });
});

describe("ids from requests", () => {
  const climbing = fc.oneof(
    fc.string({ unit: fc.constantFrom(...Array.from("./\\%\0 ~a0")) }),
    fc.webPath(),
    fc.constantFrom("..", "../..", "vol/../../x", "/etc/passwd", "vfs-000.json", ".tmp-x", "."),
  );

  it("never reach a file outside the shelf", async () => {
    const scratch = makeScratch("ids");
    const root = join(scratch.path, "root");
    await mkdir(join(scratch.path, "journal"));
    const storage = await Storage.open({
      services: [
        {
          name: "svc",
          driver: DRIVERS.vfs,
          config: { root, quota: "off" },
          settings: { shareable: false, uniqueNames: false },
        },
      ],
      journalFolder: join(scratch.path, "journal"),
      libFolder: scratch.path,
      log: SILENT,
    });
    try {
      const { driver, inventory } = storage.service("svc");
      const context = storage.operations.context(SILENT, AbortSignal.timeout(60_000));
      await fc.assert(
        fc.asyncProperty(climbing, async (id) => {
          assert.equal(await driver.volumeInspect(id, context), undefined);
          assert.equal(await driver.snapshotInspect(id, context), undefined);
          if (/[/\\\0%~ ]|^\.|\.json$|^$/.test(id))
            await assert.rejects(driver.volumeRemove(id, context), { code: "invalid-argument" });
        }),
        { numRuns: 500 },
      );
      assert.equal(inventory.volumes.size, 0);
    } finally {
      await storage.close();
      await scratch.remove();
    }
  });
});
