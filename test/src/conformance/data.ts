/** What is in volumes: kept, copied as it is, independent. */
import assert from "node:assert/strict";
import {
  appendFileSync,
  lstatSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { SnapshotRecord, VolumeRecord } from "@libstorage/server";
import { contextOf, needsFolders, snapshotOf } from "./fixture.js";
import type { Case, Fixture } from "./fixture.js";
import {
  attributesMissing,
  describeAttributes,
  describeTree,
  diskBytes,
  fillTree,
  run,
  SPARSE_BYTES,
} from "./tree.js";

function folderOf({ source }: VolumeRecord | SnapshotRecord): string {
  assert.equal(source.kind, "directory");
  return source.kind === "directory" ? source.path : "";
}

/** The four ways in which data is copied; each answers the folder of the copy. */
const WAYS: readonly {
  readonly name: string;
  copy(
    fixture: Fixture,
    source: VolumeRecord,
    more?: Parameters<typeof contextOf>[0],
  ): Promise<string>;
}[] = [
  {
    name: "a copy",
    async copy(fixture, source, more) {
      return folderOf(await fixture.copyVolume(source, fixture.volume(1), contextOf(more)));
    },
  },
  {
    name: "a snapshot",
    async copy(fixture, source, more) {
      const wanted = snapshotOf(fixture.driver, 0, source);
      return folderOf(await fixture.snapshots.snapshotCreate(source, wanted, contextOf(more)));
    },
  },
  {
    name: "a copy of a snapshot",
    async copy(fixture, source, more) {
      const snapshot = await fixture.snapshot(0, source);
      const wanted = snapshotOf(fixture.driver, 1, source);
      return folderOf(await fixture.copySnapshot(snapshot, wanted, contextOf(more)));
    },
  },
  {
    name: "a volume from a snapshot",
    async copy(fixture, source, more) {
      const snapshot = await fixture.snapshot(0, source);
      const wanted = fixture.volume(1);
      return folderOf(
        await fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf(more)),
      );
    },
  },
];

/** Enough that a copy takes a while even where blocks are shared. */
function fillWithMany(folder: string): void {
  for (let number = 0; number < 2000; number += 1)
    writeFileSync(join(folder, `file-${number}`), "some");
  writeFileSync(join(folder, "large"), Buffer.alloc(32 * 1024 ** 2, 7));
}

const PLAIN: readonly Case[] = [
  {
    title: "a new volume is an empty folder",
    async run(fixture) {
      const folder = folderOf(await fixture.create(0));
      assert.ok(lstatSync(folder).isDirectory());
      assert.deepEqual(readdirSync(folder), []);
    },
  },
  {
    title: "data is kept over every change of the record and opening again",
    async run(fixture) {
      let volume = await fixture.create(0);
      fillTree(folderOf(volume));
      const before = describeTree(folderOf(volume));
      volume = await fixture.attach(volume, "host-a");
      volume = await fixture.driver.volumeUpdate({ ...volume, name: "new" }, contextOf());
      volume = await fixture.detach(volume, "host-a");
      await fixture.reopen();
      assert.deepEqual(describeTree(folderOf(volume)), before);
    },
  },
  {
    title: "a removed volume's data is gone, and a new one of its id is empty",
    async run(fixture) {
      fillTree(folderOf(await fixture.create(0)));
      await fixture.driver.volumeRemove(fixture.volume(0).id, contextOf());
      assert.deepEqual(readdirSync(folderOf(await fixture.create(0))), []);
    },
  },
  {
    title: "removing a volume follows no link out of it",
    async run(fixture) {
      const victim = folderOf(await fixture.create(1));
      writeFileSync(join(victim, "kept"), "kept");
      const folder = folderOf(await fixture.create(0));
      run("ln", ["-s", victim, join(folder, "link")]);
      await fixture.driver.volumeRemove(fixture.volume(0).id, contextOf());
      assert.equal(readFileSync(join(victim, "kept"), "utf8"), "kept");
    },
  },
  {
    title: "a snapshot holds the moment it was made, not the one of its use",
    async run(fixture) {
      const volume = await fixture.create(0);
      const file = join(folderOf(volume), "file");
      writeFileSync(file, "then");
      const snapshot = await fixture.snapshot(0, volume);
      writeFileSync(file, "now");
      writeFileSync(join(folderOf(volume), "later"), "");
      const made = await fixture.snapshots.volumeCreateFromSnapshot(
        snapshot,
        fixture.volume(1),
        contextOf(),
      );
      assert.deepEqual(readdirSync(folderOf(made)), ["file"]);
      assert.equal(readFileSync(join(folderOf(made), "file"), "utf8"), "then");
    },
  },
  {
    title: "copies and snapshots of one volume at once all hold it",
    async run(fixture) {
      const source = await fixture.create(0);
      fillTree(folderOf(source));
      const before = describeTree(folderOf(source));
      const made = await Promise.all([
        fixture.copyVolume(source, fixture.volume(1), contextOf()),
        fixture.copyVolume(source, fixture.volume(2), contextOf()),
        fixture.snapshot(0, source),
        fixture.snapshot(1, source),
      ]);
      for (const one of made) assert.deepEqual(describeTree(folderOf(one)), before);
    },
  },
];

function waysOf(
  name: string,
  run: (way: (typeof WAYS)[number], fixture: Fixture) => Promise<void>,
) {
  return WAYS.map((way): Case => ({
    title: `${way.name} ${name}`,
    run: (fixture) => run(way, fixture),
  }));
}

const COPIED: readonly Case[] = [
  ...waysOf("has every file as it is", async (way, fixture) => {
    const source = await fixture.create(0);
    fillTree(folderOf(source));
    const before = describeTree(folderOf(source));
    assert.deepEqual(describeTree(await way.copy(fixture, source)), before);
    assert.deepEqual(describeTree(folderOf(source)), before);
  }),
  ...waysOf("of an empty volume is empty", async (way, fixture) => {
    assert.deepEqual(readdirSync(await way.copy(fixture, await fixture.create(0))), []);
  }),
  ...waysOf("keeps holes", async (way, fixture) => {
    const source = await fixture.create(0);
    fillTree(folderOf(source));
    const sparse = join(await way.copy(fixture, source), "sparse");
    assert.equal(lstatSync(sparse).size, SPARSE_BYTES);
    assert.ok(diskBytes(sparse) < SPARSE_BYTES / 8);
  }),
  ...waysOf("is not changed with its source, nor the source with it", async (way, fixture) => {
    const source = await fixture.create(0);
    const file = join(folderOf(source), "file");
    writeFileSync(file, "one");
    const copied = join(await way.copy(fixture, source), "file");
    appendFileSync(file, " changed");
    assert.equal(readFileSync(copied, "utf8"), "one");
    appendFileSync(copied, " too");
    assert.equal(readFileSync(file, "utf8"), "one changed");
    rmSync(file);
    assert.equal(readFileSync(copied, "utf8"), "one too");
  }),
  ...waysOf("tells its progress in bytes up to the end", async (way, fixture) => {
    const source = await fixture.create(0);
    writeFileSync(join(folderOf(source), "file"), Buffer.alloc(8 * 1024 ** 2, 1));
    const told: number[] = [];
    const totals = new Set<number>();
    const progress = (done: number, total: number, unit: string): void => {
      assert.equal(unit, "bytes");
      told.push(done);
      totals.add(total);
    };
    await way.copy(fixture, source, { progress });
    const [total = 0] = totals;
    assert.equal(totals.size, 1);
    assert.ok(total >= 8 * 1024 ** 2);
    assert.deepEqual(
      told,
      told.toSorted((a, b) => a - b),
    );
    assert.equal(told.at(-1), total);
  }),
  ...waysOf("that is cancelled in the middle leaves nothing", async (way, fixture) => {
    const source = await fixture.create(0);
    fillWithMany(folderOf(source));
    const before = describeTree(folderOf(source));
    const cancel = new AbortController();
    const more = { signal: cancel.signal, progress: () => cancel.abort() };
    await assert.rejects(way.copy(fixture, source, more), { code: "cancelled" });
    const { volumes, snapshots } = await fixture.list();
    assert.deepEqual(volumes, [source]);
    // Where a snapshot is copied, that one stays.
    assert.ok(snapshots.every(({ id }) => id === snapshotOf(fixture.driver, 0, source).id));
    assert.ok(snapshots.every(({ broken }) => broken === undefined));
    assert.deepEqual(describeTree(folderOf(source)), before);
  }),
];

const WITH_ATTRIBUTES: readonly Case[] = waysOf(
  "keeps extended attributes and access lists",
  async (way, fixture) => {
    const source = await fixture.create(0);
    fillTree(folderOf(source));
    run("setfattr", ["-n", "user.test", "-v", "a value", "plain"], folderOf(source));
    run("setfattr", ["-n", "user.top", "-v", "top", "."], folderOf(source));
    run("setfacl", ["-m", "u:4321:r-x", "a"], folderOf(source));
    run("setfacl", ["-d", "-m", "g:99:rwx", "empty"], folderOf(source));
    const before = describeAttributes(folderOf(source));
    assert.ok(before.length >= 4);
    assert.deepEqual(describeAttributes(await way.copy(fixture, source)), before);
  },
);

export const DATA_CASES: readonly Case[] = [
  ...[...PLAIN, ...COPIED].map((one) => ({ ...one, unless: needsFolders })),
  ...WITH_ATTRIBUTES.map((one): Case => ({
    ...one,
    unless: (driver, harness) => needsFolders(driver, harness) ?? attributesMissing(),
  })),
];
