/** Images that have another size than their record says: nothing of them is lost, and the record follows. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import type { Fields } from "@libstorage/model";
import type { VolumeRecord } from "@libstorage/server";
import { contextOf } from "../conformance/fixture.js";
import type { Case, Fixture } from "../conformance/fixture.js";
import { checkPattern, diskOf, imageSize, qemuIO, snapshotVolume } from "./image-place.js";
import { writePattern } from "./image-place.js";

const MIB = 1024 ** 2;

function resize(volume: VolumeRecord, mib: number): void {
  const { path, format } = diskOf(volume);
  const args = ["resize", "-q", "--shrink", "-f", format === "qcow2" ? "qcow2" : "raw"];
  const { status, stderr } = spawnSync("qemu-img", [...args, path, `${mib}M`], {
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
}

/** 8 MiB in its record, and 10 in truth, of which the last but one is written. */
async function grown(fixture: Fixture, fields: Fields = {}): Promise<VolumeRecord> {
  const volume = await fixture.create(0, { fields, sizeBytes: 8 * MIB });
  resize(volume, 10);
  writePattern(volume, 0x6a, 9);
  return volume;
}

function expand(fixture: Fixture, volume: VolumeRecord, sizeBytes: number): Promise<VolumeRecord> {
  const done = fixture.driver.volumeExpand?.(volume, sizeBytes, contextOf());
  return done ?? Promise.reject(new Error("it cannot expand"));
}

export const SIZE_CASES: readonly Case[] = [
  {
    title: "an expansion that is refused leaves an image that is larger than its record as it is",
    async run(fixture) {
      const volume = await grown(fixture, { format: "qcow2" });
      // The format does not take it.
      await assert.rejects(expand(fixture, volume, 2 ** 52), { code: "invalid-argument" });
      checkPattern(volume, 0x6a, 9);
      assert.equal((await fixture.inspect(volume.id))?.sizeBytes, 10 * MIB);
    },
  },
  {
    title: "an expansion to less than an image has makes nothing smaller, and tells what it has",
    async run(fixture) {
      const volume = await grown(fixture);
      assert.equal((await expand(fixture, volume, 9 * MIB)).sizeBytes, 10 * MIB);
      checkPattern(volume, 0x6a, 9);
      assert.equal((await expand(fixture, volume, 12 * MIB)).sizeBytes, 12 * MIB);
      checkPattern(volume, 0x6a, 9);
      checkPattern(volume, 0, 11);
    },
  },
  {
    title: "snapshots, copies and reverts of an image that is larger than its record are as large",
    async run(fixture) {
      const volume = await grown(fixture);
      const { snapshot } = await snapshotVolume(fixture, volume, 0);
      assert.equal(snapshot.sizeBytes, 10 * MIB);
      checkPattern(volume, 0x6a, 9);
      const wanted = { ...fixture.volume(1), sizeBytes: 10 * MIB };
      const made = await fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf());
      checkPattern(made, 0x6a, 9);
      const copy = await fixture.copyVolume(
        volume,
        { ...fixture.volume(2), sizeBytes: 10 * MIB },
        contextOf(),
      );
      checkPattern(copy, 0x6a, 9);
      resize(volume, 11);
      writePattern(volume, 0x6b, 10);
      const { reverts } = fixture.driver;
      const reverted = await reverts?.volumeRevert(volume, snapshot, contextOf());
      assert.equal(reverted?.sizeBytes, 11 * MIB);
      checkPattern(volume, 0x6a, 9);
      checkPattern(volume, 0, 10);
    },
  },
  {
    title: "a conversion of an image that is larger than its record keeps all of it",
    async run(fixture) {
      const volume = await grown(fixture);
      const to = diskOf(volume).format === "raw" ? "qcow2" : "raw";
      const converted = await fixture.driver.images?.convert(volume, to, contextOf());
      assert.ok(converted !== undefined);
      assert.equal(converted.sizeBytes, 10 * MIB);
      checkPattern(converted, 0x6a, 9);
    },
  },
  {
    title: "the record follows the image when it is written next",
    async run(fixture) {
      const volume = await grown(fixture);
      const fields = { exporter: "some" };
      const held = await fixture.attach(volume, "host-b", { fields });
      assert.equal(held.sizeBytes, 10 * MIB);
      resize(volume, 12);
      const [listed] = (await fixture.list()).volumes;
      assert.equal(listed?.sizeBytes, 12 * MIB, "somebody has it who may change its size");
      const after = await fixture.detach(held, "host-b");
      assert.equal(after.sizeBytes, 12 * MIB);
      await fixture.reopen();
      assert.equal((await fixture.list()).volumes[0]?.sizeBytes, 12 * MIB);
    },
  },
  {
    title: "a qcow2 that its user has truncated has the size that it has, and grows from there",
    async run(fixture) {
      const volume = await fixture.create(0, { fields: { format: "qcow2" }, sizeBytes: 8 * MIB });
      resize(volume, 1);
      assert.equal((await fixture.inspect(volume.id))?.sizeBytes, MIB);
      assert.equal((await expand(fixture, volume, 4 * MIB)).sizeBytes, 4 * MIB);
      assert.equal(imageSize(diskOf(volume).path), 4 * MIB);
      assert.ok(qemuIO(volume, "truncate 0").ok);
      assert.equal((await fixture.inspect(volume.id))?.sizeBytes, 512, "0 would be: without limit");
      assert.equal((await expand(fixture, volume, 4 * MIB)).sizeBytes, 4 * MIB);
      checkPattern(volume, 0, 3);
    },
  },
  {
    title: "an encrypted image has the size that it was made with",
    async run(fixture) {
      for (const [number, format] of (["raw", "qcow2"] as const).entries()) {
        const about = { encrypted: true, fields: { format }, sizeBytes: 8 * MIB };
        const { id, sizeBytes } = await fixture.create(number, about);
        assert.equal(sizeBytes, 8 * MIB);
        assert.equal((await fixture.inspect(id))?.sizeBytes, sizeBytes);
      }
    },
  },
  {
    title: "a header that cannot be read does not change what the record says",
    async run(fixture) {
      const volume = await fixture.create(0, { fields: { format: "qcow2" } });
      writeFileSync(diskOf(volume).path, "no image");
      assert.equal((await fixture.inspect(volume.id))?.sizeBytes, volume.sizeBytes);
      assert.ok(!qemuIO(volume, "read 0 512").ok);
    },
  },
];
