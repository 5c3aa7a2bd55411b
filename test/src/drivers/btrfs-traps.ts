/** Cases of btrfs alone: the traps of its tool, and what is put in the place of subvolumes. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statfsSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import type { SnapshotRecord, VolumeRecord } from "@libstorage/server";
import { contextOf, snapshotOf } from "../conformance/fixture.js";
import type { Case } from "../conformance/fixture.js";
import { run } from "../conformance/tree.js";
import { changesDuring, idsOf } from "./vfs-host.js";
import { withOutside } from "./vfs-planted.js";
import { rootOf } from "./vfs-records.js";

const MIB = 1024 ** 2;
const REFUSED = { code: "failed-precondition" };

export function pathOf({ source }: VolumeRecord | SnapshotRecord): string {
  assert.equal(source.kind, "directory");
  return source.kind === "directory" ? source.path : "";
}

const isSubvolume = (path: string): boolean => lstatSync(path).ino === 256;

function deleteByHand(path: string): void {
  run("btrfs", ["subvolume", "delete", path]);
}

const SNAPSHOTS: readonly Case[] = [
  {
    title: "volumes are subvolumes, and a snapshot cannot be written",
    async run(fixture) {
      const volume = await fixture.create(0);
      writeFileSync(join(pathOf(volume), "file"), "then");
      const snapshot = await fixture.snapshot(0, volume);
      const wanted = snapshotOf(fixture.driver, 1, volume);
      const copy = await fixture.copySnapshot(snapshot, wanted, contextOf());
      for (const one of [snapshot, copy]) {
        assert.ok(isSubvolume(pathOf(one)));
        assert.throws(() => writeFileSync(join(pathOf(one), "file"), "now"), { code: "EROFS" });
      }
      assert.ok(isSubvolume(pathOf(volume)));
    },
  },
  {
    title: "a snapshot does not nest in a folder that stands in its way",
    async run(fixture) {
      const root = await rootOf(fixture);
      const volume = await fixture.create(0);
      const { id } = snapshotOf(fixture.driver, 0, volume);
      mkdirSync(join(root, "snap", id));
      const snapshot = await fixture.snapshot(0, volume);
      assert.deepEqual(readdirSync(pathOf(snapshot)), []);
      assert.ok(isSubvolume(pathOf(snapshot)));
      assert.deepEqual(readdirSync(join(root, "snap")).toSorted(), [id, `${id}.json`]);
    },
  },
  {
    title: "a snapshot does not nest in what a link in its way leads to",
    run: (fixture) =>
      withOutside(async (outside) => {
        const root = await rootOf(fixture);
        const volume = await fixture.create(0);
        const { id } = snapshotOf(fixture.driver, 0, volume);
        symlinkSync(outside, join(root, "snap", id));
        await assert.rejects(fixture.snapshot(0, volume), { code: "already-exists" });
        await fixture.snapshots.snapshotRemove(id, contextOf());
        assert.ok(isSubvolume(pathOf(await fixture.snapshot(0, volume))));
      }),
  },
  {
    title: "copies and snapshots take no space of their own",
    async run(fixture) {
      const source = await fixture.create(0);
      const path = pathOf(source);
      writeFileSync(join(path, "large"), Buffer.alloc(64 * MIB, 7));
      run("sync", ["-f", path]);
      const before = statfsSync(path).bfree;
      const snapshot = await fixture.snapshot(0, source);
      await fixture.copyVolume(source, fixture.volume(1), contextOf());
      await fixture.snapshots.volumeCreateFromSnapshot(snapshot, fixture.volume(2), contextOf());
      run("sync", ["-f", path]);
      const used = (before - statfsSync(path).bfree) * statfsSync(path).bsize;
      assert.ok(used < 8 * MIB, `three copies took ${used} bytes`);
    },
  },
  {
    title: "two services on one file system keep apart, with the same ids",
    async run(fixture) {
      const other = await fixture.harness.place();
      const driver = await other.open(contextOf());
      try {
        const mine = await fixture.create(0);
        const theirs = await driver.volumeCreate(fixture.volume(0), contextOf());
        assert.equal(mine.id, theirs.id);
        assert.notEqual(pathOf(mine), pathOf(theirs));
        await fixture.driver.volumeRemove(mine.id, contextOf());
        assert.deepEqual((await driver.list(contextOf())).volumes, [theirs]);
      } finally {
        await driver.close();
        await other.close();
      }
    },
  },
];

const NESTED: readonly Case[] = [
  {
    title: "subvolumes in a volume: a snapshot that would lack their data is refused, by name",
    async run(fixture) {
      const volume = await fixture.create(0);
      mkdirSync(join(pathOf(volume), "deep"));
      run("btrfs", ["subvolume", "create", join(pathOf(volume), "deep/inner one")]);
      const refused = { ...REFUSED, message: /subvolumes in it .*deep\/inner one/ };
      await assert.rejects(fixture.snapshot(0, volume), refused);
      await assert.rejects(fixture.copyVolume(volume, fixture.volume(1), contextOf()), refused);
      assert.deepEqual(await fixture.list(), { volumes: [volume], snapshots: [] });
    },
  },
  {
    title: "subvolumes in a volume are removed with it, however deep and read-only",
    async run(fixture) {
      const path = pathOf(await fixture.create(0));
      run("btrfs", ["subvolume", "create", join(path, "one")]);
      mkdirSync(join(path, "one/folder"));
      run("btrfs", ["subvolume", "create", join(path, "one/folder/two")]);
      writeFileSync(join(path, "one/folder/two/file"), "");
      run("btrfs", ["subvolume", "snapshot", "-r", join(path, "one/folder/two"), join(path, "ro")]);
      await fixture.driver.volumeRemove(fixture.volume(0).id, contextOf());
      assert.equal(existsSync(path), false);
    },
  },
  {
    title: "a subvolume whose name looks like a line of the list leads no delete astray",
    async run(fixture) {
      const victim = await fixture.create(1);
      writeFileSync(join(pathOf(victim), "kept"), "kept");
      const path = pathOf(await fixture.create(0));
      const top = basename(dirname(dirname(path)));
      const name = `x\nID 5 gen 5 top level 5 path ${top}`;
      mkdirSync(join(path, `${name}/vol`), { recursive: true });
      run("btrfs", ["subvolume", "create", join(path, `${name}/vol/btrfs-001`)]);
      writeFileSync(join(path, `${name}/vol/btrfs-001/file`), "");
      await fixture.driver.volumeRemove(fixture.volume(0).id, contextOf());
      assert.equal(readFileSync(join(pathOf(victim), "kept"), "utf8"), "kept");
      assert.deepEqual((await fixture.list()).volumes, [victim]);
    },
  },
];

const REPLACED: readonly Case[] = [
  {
    title: "a subvolume replaced by a plain folder is broken and left alone",
    async run(fixture) {
      const volume = await fixture.create(0);
      const path = pathOf(volume);
      deleteByHand(path);
      mkdirSync(path);
      writeFileSync(join(path, "file"), "by hand");
      const broken = await fixture.inspect(volume.id);
      assert.match(broken?.broken ?? "", /is a plain folder, not a subvolume/);
      assert.deepEqual((await fixture.list()).volumes, [broken]);
      await assert.rejects(fixture.attach(volume, "host-a"), REFUSED);
      await assert.rejects(fixture.snapshot(0, volume), REFUSED);
      await assert.rejects(fixture.copyVolume(volume, fixture.volume(1), contextOf()), REFUSED);
      assert.equal(readFileSync(join(path, "file"), "utf8"), "by hand");
    },
  },
  {
    title: "a subvolume replaced by a link to another is broken; removing it removes the link",
    async run(fixture) {
      const victim = await fixture.create(1);
      writeFileSync(join(pathOf(victim), "kept"), "kept");
      const volume = await fixture.create(0);
      deleteByHand(pathOf(volume));
      symlinkSync(pathOf(victim), pathOf(volume));
      assert.match((await fixture.inspect(volume.id))?.broken ?? "", /is a symbolic link/);
      await assert.rejects(fixture.snapshot(0, volume), REFUSED);
      await fixture.driver.volumeRemove(volume.id, contextOf());
      assert.equal(readFileSync(join(pathOf(victim), "kept"), "utf8"), "kept");
      assert.deepEqual((await fixture.list()).volumes, [victim]);
    },
  },
  {
    title: "a snapshot whose subvolume is gone is broken, and makes no volume",
    async run(fixture) {
      const snapshot = await fixture.snapshot(0, await fixture.create(0));
      deleteByHand(pathOf(snapshot));
      assert.match((await fixture.list()).snapshots[0]?.broken ?? "", /is missing/);
      const wanted = fixture.volume(1);
      const make = fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf());
      await assert.rejects(make, REFUSED);
    },
  },
  {
    title: "a record edited by hand breaks its volume only, until it is mended",
    async run(fixture) {
      const root = await rootOf(fixture);
      const good = await fixture.create(1);
      const volume = await fixture.create(0);
      const record = join(root, "vol", `${volume.id}.json`);
      const text = readFileSync(record, "utf8");
      for (const bad of ["", text.slice(0, 20), text.replace(volume.id, good.id), "[]"]) {
        writeFileSync(record, bad);
        const { volumes } = await fixture.list();
        assert.match(volumes[0]?.broken ?? "", /cannot be used/);
        assert.deepEqual(volumes[1], good);
        await assert.rejects(fixture.attach(volume, "host-a"), REFUSED);
      }
      writeFileSync(record, text);
      assert.deepEqual(await fixture.inspect(volume.id), volume);
    },
  },
  {
    title: "a subvolume whose record is lost is shown, and nothing is made over it",
    async run(fixture) {
      const root = await rootOf(fixture);
      const volume = await fixture.create(0);
      writeFileSync(join(pathOf(volume), "precious"), "data");
      rmSync(join(root, "vol", `${volume.id}.json`));
      assert.match((await fixture.inspect(volume.id))?.broken ?? "", /record .* is missing/);
      await assert.rejects(fixture.create(0), { code: "already-exists" });
      const source = await fixture.create(1);
      const copy = fixture.copyVolume(source, fixture.volume(0), contextOf());
      await assert.rejects(copy, { code: "already-exists" });
      assert.equal(readFileSync(join(pathOf(volume), "precious"), "utf8"), "data");
    },
  },
];

const HAND: readonly Case[] = [
  {
    title: "what is changed by hand is noticed, own changes are not reported",
    async run(fixture) {
      const root = await rootOf(fixture);
      const own = await changesDuring(fixture, 0, async () => {
        const volume = await fixture.create(0);
        await fixture.snapshot(0, volume);
        await fixture.copyVolume(volume, fixture.volume(1), contextOf());
        await fixture.driver.volumeRemove(fixture.volume(1).id, contextOf());
      });
      assert.deepEqual(own, []);
      const changed = await changesDuring(fixture, 3, async () => {
        utimesSync(join(root, "vol/btrfs-000.json"), 1, 1);
        deleteByHand(join(root, "snap/btrfs-000-000"));
        run("btrfs", ["subvolume", "create", join(root, "vol/btrfs-005")]);
      });
      assert.deepEqual(idsOf(changed), ["btrfs-000", "btrfs-000-000", "btrfs-005"]);
      rmdirSync(join(root, "vol/btrfs-005"));
    },
  },
  {
    title: "a removal does not wait for the cleaner, and abilities tell what waits",
    async run(fixture) {
      const waiting = async (): Promise<string> =>
        (await fixture.driver.abilities(contextOf())).find(({ name }) => name === "cleaner")
          ?.detail ?? "";
      const root = await rootOf(fixture);
      run("btrfs", ["filesystem", "sync", root]);
      run("btrfs", ["subvolume", "sync", root]);
      assert.match(await waiting(), /space of all that was removed is free/);
      const volume = await fixture.create(0);
      const file = join(pathOf(volume), "open");
      writeFileSync(file, "");
      // The cleaner comes when nobody uses it any more.
      const handle = openSync(file, "r");
      const started = performance.now();
      await fixture.driver.volumeRemove(volume.id, contextOf());
      assert.ok(performance.now() - started < 5000);
      const told = await waiting();
      closeSync(handle);
      assert.match(told, /[1-9]\d* deleted subvolumes? waits? for it/);
    },
  },
  {
    title: "a volume mounted by its subvolume, not by its folder, is not cut off by force",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      const target = mkdtempSync(join(tmpdir(), "by-subvolume-"));
      const columns = ["--noheadings", "--nofsroot", "--output", "SOURCE,TARGET"];
      const found = run("findmnt", [...columns, "--target", pathOf(held)]);
      const [device = "", top = ""] = found.trim().split(/\s+/);
      const inside = pathOf(held).slice(top.length + 1);
      run("mount", ["-t", "btrfs", "-o", `subvol=${inside}`, device, target]);
      try {
        await assert.rejects(fixture.detach(held, "host-a", true), (error: Error) => {
          assert.ok(error.message.includes(target), error.message);
          return true;
        });
      } finally {
        spawnSync("umount", [target]);
      }
      rmdirSync(target);
      assert.deepEqual((await fixture.detach(held, "host-a", true)).attachments, []);
    },
  },
];

export const TRAP_CASES: readonly Case[] = [...SNAPSHOTS, ...NESTED, ...REPLACED, ...HAND];
