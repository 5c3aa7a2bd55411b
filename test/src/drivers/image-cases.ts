/** What is in images: kept, copied as it is, independent; and what is not taken for one. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { lstatSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { contextOf, OTHER_SIZE, snapshotOf } from "../conformance/fixture.js";
import type { Case } from "../conformance/fixture.js";
import { checkPattern, diskOf, fromSnapshot, snapshotVolume, writePattern } from "./image-place.js";
import { SIZE_CASES } from "./image-sizes.js";
import { USED_CASES } from "./image-used.js";
import { IMPORT_CASES, WORK_CASES } from "./image-work.js";

const MIB = 1024 ** 2;

const DATA: readonly Case[] = [
  {
    title: "a new image takes next to nothing and reads as zeros",
    async run(fixture) {
      const volume = await fixture.create(0);
      assert.ok(lstatSync(diskOf(volume).path).blocks * 512 < MIB);
      checkPattern(volume, 0, 5);
    },
  },
  {
    title: "an image is for the server's user only",
    async run(fixture) {
      const { path } = diskOf(await fixture.create(0));
      assert.equal(lstatSync(dirname(path)).mode & 0o777, 0o700);
    },
  },
  {
    title: "the format of a volume's option counts, and one that is not known is refused",
    async run(fixture) {
      const volume = await fixture.create(0, { fields: { format: "qcow2" } });
      assert.equal(diskOf(volume).format, "qcow2");
      assert.equal(readFileSync(diskOf(volume).path).toString("latin1", 0, 3), "QFI");
      const raw = await fixture.create(1, { fields: { format: "raw" } });
      assert.equal(lstatSync(diskOf(raw).path).size, raw.sizeBytes);
      const vmdk = fixture.create(2, { fields: { format: "vmdk" } });
      await assert.rejects(vmdk, { code: "invalid-argument", message: /vmdk/ });
    },
  },
  {
    title: "preallocation takes the space at once",
    async run(fixture) {
      const fields = { preallocation: "falloc" };
      const volume = await fixture.create(0, { fields, sizeBytes: 8 * MIB });
      assert.ok(lstatSync(diskOf(volume).path).blocks * 512 >= 8 * MIB);
      const unknown = fixture.create(1, { fields: { preallocation: "maybe" } });
      await assert.rejects(unknown, { code: "invalid-argument" });
    },
  },
  {
    title: "copies are independent of their source, both ways",
    async run(fixture) {
      const source = await fixture.create(0);
      writePattern(source, 0x11);
      const copy = await fixture.copyVolume(source, fixture.volume(1), contextOf());
      checkPattern(copy, 0x11);
      writePattern(copy, 0x22);
      writePattern(source, 0x33, 1);
      checkPattern(source, 0x11);
      checkPattern(copy, 0x22);
      checkPattern(copy, 0, 1);
      await fixture.driver.volumeRemove(source.id, contextOf());
      checkPattern(copy, 0x22);
    },
  },
  {
    title: "a copy that is larger reads as zeros behind the source's end",
    async run(fixture) {
      const source = await fixture.create(0, { sizeBytes: 4 * MIB });
      writePattern(source, 0x11, 3);
      const copy = await fixture.copyVolume(
        source,
        fixture.volume(1, { sizeBytes: 8 * MIB }),
        contextOf(),
      );
      checkPattern(copy, 0x11, 3);
      checkPattern(copy, 0, 7);
      const small = fixture.volume(2, { sizeBytes: 2 * MIB });
      const shrunk = fixture.copyVolume(source, small, contextOf());
      await assert.rejects(shrunk, { code: "invalid-argument" });
    },
  },
  {
    title: "a copy keeps the holes of its source",
    async run(fixture) {
      const source = await fixture.create(0);
      writePattern(source, 0x11, 500);
      const copy = await fixture.copyVolume(source, fixture.volume(1), contextOf());
      assert.ok(lstatSync(diskOf(copy).path).blocks * 512 < 8 * MIB);
      checkPattern(copy, 0x11, 500);
    },
  },
  {
    title: "each snapshot holds its moment, whatever becomes of the others and of the volume",
    async run(fixture) {
      const volume = await fixture.create(0);
      writePattern(volume, 1);
      const first = await snapshotVolume(fixture, volume, 0);
      writePattern(volume, 2);
      const second = await snapshotVolume(fixture, volume, 1);
      writePattern(volume, 3);
      const third = await snapshotVolume(fixture, volume, 2);
      writePattern(volume, 4);
      checkPattern(await first.make(1), 1);
      await fixture.snapshots.snapshotRemove(first.snapshot.id, contextOf());
      checkPattern(volume, 4);
      checkPattern(await second.make(2), 2);
      await fixture.driver.volumeRemove(volume.id, contextOf());
      checkPattern(await third.make(3), 3);
      await fixture.snapshots.snapshotRemove(third.snapshot.id, contextOf());
      checkPattern(await second.make(4), 2);
    },
  },
  {
    title: "a copy of a snapshot holds the same, and outlives it",
    async run(fixture) {
      const volume = await fixture.create(0);
      writePattern(volume, 1);
      const { snapshot } = await snapshotVolume(fixture, volume, 0);
      writePattern(volume, 2);
      const wanted = snapshotOf(fixture.driver, 1, volume);
      const copy = await fixture.copySnapshot(snapshot, wanted, contextOf());
      await fixture.snapshots.snapshotRemove(snapshot.id, contextOf());
      checkPattern(await fromSnapshot(fixture, copy.id, 1), 1);
      checkPattern(volume, 2);
    },
  },
  {
    title: "an expanded image keeps its data and reads as zeros behind",
    async run(fixture) {
      const volume = await fixture.create(0);
      writePattern(volume, 7);
      await fixture.snapshot(0, volume);
      const grown = await fixture.driver.volumeExpand?.(volume, OTHER_SIZE, contextOf());
      assert.ok(grown !== undefined);
      checkPattern(grown, 7);
      checkPattern(grown, 0, 3000);
    },
  },
  {
    title: "a size that is no whole GiB is kept to the byte",
    async run(fixture) {
      const volume = await fixture.create(0, { sizeBytes: 5 * MIB });
      assert.equal((await fixture.inspect(volume.id))?.sizeBytes, 5 * MIB);
      await fixture.reopen();
      assert.equal((await fixture.inspect(volume.id))?.sizeBytes, 5 * MIB);
    },
  },
  {
    title: "an encrypted volume holds nothing in clear, is copied and expanded with its key",
    async run(fixture) {
      const volume = await fixture.create(0, { encrypted: true, sizeBytes: 4 * MIB });
      const { path, format } = diskOf(volume);
      const isQcow2 = format === "qcow2+luks";
      assert.ok(isQcow2 || format === "luks");
      assert.equal(readFileSync(path).indexOf("LUKS\xba\xbe", 0, "latin1") >= 0, true);
      const plain = spawnSync("qemu-io", [
        "-f",
        isQcow2 ? "qcow2" : "luks",
        "-c",
        "read 0 1M",
        path,
      ]);
      assert.notEqual(plain.status, 0, "it can be read without the key");
      const grown = await fixture.driver.volumeExpand?.(volume, 8 * MIB, contextOf());
      assert.equal(grown?.sizeBytes, 8 * MIB);
      const copy = await fixture.copyVolume(
        grown ?? volume,
        fixture.volume(1, { sizeBytes: 8 * MIB }),
        contextOf(),
      );
      assert.equal(copy.encrypted, true);
      assert.equal(diskOf(copy).format, format);
    },
  },
  {
    title: "a copy of a plain volume cannot be called encrypted",
    async run(fixture) {
      const source = await fixture.create(0);
      const wanted = fixture.volume(1, { encrypted: true });
      const copy = fixture.copyVolume(source, wanted, contextOf());
      await assert.rejects(copy, { code: "invalid-argument", message: /not encrypted/ });
    },
  },
];

function brokenCase(title: string, plant: (disk: string) => void, why: RegExp): Case {
  return {
    title,
    async run(fixture) {
      const volume = await fixture.create(0);
      const kept = await fixture.create(1);
      const { path } = diskOf(volume);
      plant(path);
      const { volumes } = await fixture.list();
      assert.match(volumes[0]?.broken ?? "", why);
      assert.deepEqual(volumes[1], kept);
      const copy = fixture.copyVolume(volume, fixture.volume(2), contextOf());
      await assert.rejects(copy, { code: "failed-precondition" });
    },
  };
}

const PLANTED: readonly Case[] = [
  brokenCase(
    "an image that was replaced by a link is broken, and what it leads to is left alone",
    (disk) => {
      rmSync(disk);
      symlinkSync("/etc/hostname", disk);
    },
    /not a plain file/,
  ),
  brokenCase("an image that is missing is broken", (disk) => rmSync(disk), /has no image/),
  {
    title: "a header that was given a backing file outside is refused before anything is opened",
    async run(fixture) {
      const volume = await fixture.create(0, { fields: { format: "qcow2" } });
      const { path } = diskOf(volume);
      const secret = join(dirname(path), "..", "secret");
      writeFileSync(secret, Buffer.alloc(MIB, 0x5e));
      spawnSync("qemu-img", ["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", secret, path]);
      const copy = fixture.copyVolume(volume, fixture.volume(1), contextOf());
      await assert.rejects(copy, { code: "failed-precondition", message: /backing file/ });
      const expand = fixture.driver.volumeExpand?.(volume, OTHER_SIZE, contextOf());
      await assert.rejects(expand ?? Promise.resolve(), { code: "failed-precondition" });
      rmSync(secret);
    },
  },
  {
    title: "an image that is held by another QEMU is not resized, and the error says which lock",
    async run(fixture) {
      const volume = await fixture.create(0, { fields: { format: "qcow2" } });
      const { path } = diskOf(volume);
      const child = spawn("qemu-io", ["-f", "qcow2", path], { stdio: ["pipe", "pipe", "ignore"] });
      child.stdin.write("write -P 1 0 4k\n");
      await once(child.stdout, "data");
      try {
        const expand = fixture.driver.volumeExpand?.(volume, OTHER_SIZE, contextOf());
        await assert.rejects(expand ?? Promise.resolve(), {
          code: "failed-precondition",
          message: /another QEMU process has .* open .*lock/,
        });
      } finally {
        child.stdin.end("quit\n");
        await once(child, "exit");
      }
    },
  },
];

export const IMAGE_CASES: readonly Case[] = [
  ...DATA,
  ...USED_CASES,
  ...PLANTED,
  ...SIZE_CASES,
  ...IMPORT_CASES,
  ...WORK_CASES,
];
