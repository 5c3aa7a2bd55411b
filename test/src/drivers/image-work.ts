/** Images that come from outside, and work on images. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { VolumeRecord } from "@libstorage/server";
import { contextOf, OTHER_SIZE } from "../conformance/fixture.js";
import type { Case } from "../conformance/fixture.js";
import { checkPattern, diskOf, fromSnapshot, snapshotVolume, writePattern } from "./image-place.js";

const MIB = 1024 ** 2;

function importFolder(volume: VolumeRecord): string {
  return join(diskOf(volume).path, "../../../import");
}

const ISO_HEAD = Buffer.concat([
  Buffer.alloc(32_768),
  Buffer.from("\x01CD001\x01\0"),
  Buffer.alloc(4096),
]);

export const IMPORT_CASES: readonly Case[] = [
  {
    title: "a qcow2 is imported, and what came is left where it was",
    async run(fixture) {
      const source = await fixture.create(0, { fields: { format: "qcow2" }, sizeBytes: 4 * MIB });
      writePattern(source, 9, 2);
      const folder = importFolder(source);
      copyFileSync(diskOf(source).path, join(folder, "a.qcow2"));
      const sha256 = createHash("sha256")
        .update(readFileSync(join(folder, "a.qcow2")))
        .digest("hex");
      const fields = { import: "a.qcow2", importformat: "qcow2", sha256 };
      const volume = await fixture.create(1, { fields, sizeBytes: MIB });
      assert.equal(volume.sizeBytes, 4 * MIB, "not smaller than what came");
      checkPattern(volume, 9, 2);
      const wrong = fixture.create(2, { fields: { ...fields, sha256: "0".repeat(64) } });
      await assert.rejects(wrong, { code: "invalid-argument", message: /SHA-256/ });
      assert.ok(existsSync(join(folder, "a.qcow2")));
      const unstated = fixture.create(2, { fields: { import: "a.qcow2" } });
      await assert.rejects(unstated, {
        code: "invalid-argument",
        message: /format has to be stated/,
      });
      const missing = fixture.create(2, { fields: { ...fields, import: "b" } });
      await assert.rejects(missing, { code: "not-found" });
    },
  },
  {
    title: "an ISO file is imported as it is, and keeps its size",
    async run(fixture) {
      const folder = importFolder(await fixture.create(0));
      writeFileSync(join(folder, "x.iso"), ISO_HEAD);
      const fields = { import: "x.iso", importformat: "iso" };
      const volume = await fixture.create(1, { fields });
      assert.equal(diskOf(volume).format, "iso");
      assert.deepEqual(
        readFileSync(diskOf(volume).path),
        Buffer.concat([ISO_HEAD, Buffer.alloc(volume.sizeBytes - ISO_HEAD.length)]),
      );
      const expand = fixture.driver.volumeExpand?.(volume, OTHER_SIZE, contextOf());
      await assert.rejects(expand ?? Promise.resolve(), { code: "failed-precondition" });
      writeFileSync(join(folder, "x.iso"), "no disc at all");
      const none = fixture.create(2, { fields });
      await assert.rejects(none, { code: "invalid-argument", message: /ISO 9660/ });
    },
  },
];

export const WORK_CASES: readonly Case[] = [
  {
    title: "an image is converted there and back, whatever lies below it",
    async run(fixture) {
      const volume = await fixture.create(0, { sizeBytes: 16 * MIB });
      writePattern(volume, 0x21, 3);
      const { snapshot } = await snapshotVolume(fixture, volume, 0);
      writePattern(volume, 0x22, 4);
      const steps: number[] = [];
      const progress = (done: number): unknown => steps.push(done);
      const context = contextOf({ progress });
      for (const format of ["qcow2", "raw", "qcow2", "qcow2"]) {
        const before = (await fixture.inspect(volume.id)) ?? volume;
        const converted = await fixture.driver.images?.convert(before, format, context);
        assert.ok(converted !== undefined);
        assert.equal(diskOf(converted).format, format);
        checkPattern(converted, 0x21, 3);
        checkPattern(converted, 0x22, 4);
        assert.deepEqual(readdirSync(dirname(diskOf(converted).path)), [`disk.${format}`]);
      }
      assert.equal(steps.at(-1), 16 * MIB);
      const made = await fromSnapshot(fixture, snapshot.id, 1);
      checkPattern(made, 0x21, 3);
      checkPattern(made, 0, 4);
    },
  },
  {
    title: "a convert that is cancelled, or to a format that is not known, leaves the original",
    async run(fixture) {
      const volume = await fixture.create(0);
      writePattern(volume, 5);
      const context = contextOf({ signal: AbortSignal.timeout(1) });
      const late = fixture.driver.images?.convert(volume, "qcow2", context);
      await assert.rejects(late ?? Promise.resolve(), { name: "StorageError" });
      const vmdk = fixture.driver.images?.convert(volume, "vmdk", contextOf());
      await assert.rejects(vmdk ?? Promise.resolve(), { code: "invalid-argument" });
      assert.deepEqual(await fixture.inspect(volume.id), volume);
      checkPattern(volume, 5);
      const { path } = diskOf(volume);
      assert.deepEqual(readdirSync(dirname(path)), [basename(path)]);
    },
  },
  {
    title: "an image shrinks, and not over data unless they may be discarded",
    async run(fixture) {
      const volume = await fixture.create(0, { sizeBytes: 8 * MIB });
      writePattern(volume, 5, 6);
      const shrink = (discard: boolean) =>
        fixture.driver.images?.shrink(volume, 4 * MIB, discard, contextOf()) ??
        Promise.resolve(volume);
      await assert.rejects(shrink(false), {
        code: "failed-precondition",
        message: /data at 6 MiB/,
      });
      checkPattern(volume, 5, 6);
      const shrunk = await shrink(true);
      assert.equal(shrunk.sizeBytes, 4 * MIB);
      assert.deepEqual(await fixture.inspect(volume.id), shrunk);
      const empty = await fixture.create(1, { sizeBytes: 8 * MIB });
      const done = await fixture.driver.images?.shrink(empty, 4 * MIB, false, contextOf());
      assert.equal(done?.sizeBytes, 4 * MIB);
    },
  },
  {
    title: "leaks are found, and mended when that is asked",
    async run(fixture) {
      const volume = await fixture.create(0, { fields: { format: "qcow2" }, sizeBytes: 8 * MIB });
      writePattern(volume, 5);
      const check = (repair: boolean) => fixture.driver.images?.check(volume, repair, contextOf());
      assert.equal((await check(false))?.status, "clean");
      leakCluster(diskOf(volume).path);
      const found = await check(false);
      assert.equal(found?.status, "leaks");
      assert.equal(found?.leaks, 1);
      assert.equal((await check(true))?.fixed, 1);
      assert.equal((await check(false))?.status, "clean");
      checkPattern(volume, 5);
    },
  },
  {
    title: "what is corrupt is told as such, and a repair leaves it alone",
    async run(fixture) {
      const volume = await fixture.create(0, { fields: { format: "qcow2" }, sizeBytes: 8 * MIB });
      writePattern(volume, 5);
      const { path } = diskOf(volume);
      const check = (repair: boolean) => fixture.driver.images?.check(volume, repair, contextOf());
      dropReference(path);
      const damaged = readFileSync(path);
      const report = await check(false);
      assert.deepEqual([report?.status, report?.leaks, report?.fixed], ["corrupt", 0, 0]);
      assert.ok(report !== undefined && report.corruptions > 0);
      assert.ok(readFileSync(path).equals(damaged), "a look changes nothing");
      leakCluster(path);
      const leaking = readFileSync(path);
      for (const repair of [false, true, false])
        assert.deepEqual(await check(repair), { ...report, leaks: 1 });
      assert.ok(readFileSync(path).equals(leaking), "nor does a repair, which could only guess");
      checkPattern(volume, 5);
    },
  },
  {
    title: "what a file would take is measured",
    async run(fixture) {
      const volume = await fixture.create(0, { sizeBytes: 8 * MIB });
      writePattern(volume, 5);
      const size = await fixture.driver.images?.measure(volume, "qcow2", contextOf());
      assert.ok(size !== undefined && size.requiredBytes >= MIB);
      assert.ok(size.requiredBytes < size.fullBytes);
    },
  },
];

/** Says of the first cluster with data that nothing uses it, so that it could be given away. */
function dropReference(path: string): void {
  const image = readFileSync(path);
  const offsetAt = (at: number): number => Number(image.readBigUInt64BE(at) & 0xff_ffff_ffff_fe00n);
  const [l1, table] = [offsetAt(40), offsetAt(48)];
  const data = offsetAt(offsetAt(l1));
  image.writeUInt16BE(0, offsetAt(table) + (data / 65_536) * 2);
  writeFileSync(path, image);
}

/** Counts a cluster at the end of a qcow2 that nothing uses, as a QEMU that was killed may leave it. */
function leakCluster(path: string): void {
  const image = readFileSync(path);
  const table = Number(image.readBigUInt64BE(48));
  const block = Number(image.readBigUInt64BE(table));
  const cluster = Math.ceil(image.length / 65_536);
  image.writeUInt16BE(1, block + cluster * 2);
  writeFileSync(path, Buffer.concat([image, Buffer.alloc((cluster + 1) * 65_536 - image.length)]));
}
