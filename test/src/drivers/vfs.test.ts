import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, statSync, statfsSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { CountedFaults, DRIVERS } from "@libstorage/server";
import * as v from "valibot";
import { testDriver } from "../conformance.js";
import { contextOf, Fixture } from "../conformance/fixture.js";
import { fillTree } from "../conformance/tree.js";
import type { Case, Harness, Place } from "../conformance/fixture.js";
import { loopMissing, makeLoop } from "../loop.js";
import type { LoopFileSystem, LoopOptions } from "../loop.js";
import { HOST_CASES } from "./vfs-host.js";
import { PLANTED_CASES } from "./vfs-planted.js";
import { RECORD_CASES, rootOf } from "./vfs-records.js";

const MIB = 1024 ** 2;

/** An empty root below `folder`. */
async function placeIn(folder: string, quota: "auto" | "require"): Promise<Place> {
  const root = await mkdtemp(join(folder, "vfs-"));
  return {
    open: (context) => DRIVERS.vfs.open({ root, quota }, context),
    leftovers: async () => [
      ...(await readdir(join(root, "vol"))),
      ...(await readdir(join(root, "snap"))),
    ],
    close: () => rm(root, { recursive: true }),
  };
}

const ALWAYS = { skip: false, isDurable: true, hasFolders: true, hasDoors: true } as const;

function loopHarness(options: LoopOptions, quota: "auto" | "require" = "auto"): Harness {
  let loop: LoopFileSystem | string = "not made yet";
  return {
    ...ALWAYS,
    hasDoors: "where an operation is cut does not depend on the file system: see vfs",
    skip: loopMissing(options),
    before: async () => {
      loop = makeLoop(options);
      assert.ok(typeof loop !== "string", "it could be made a moment ago");
    },
    after: async () => {
      if (typeof loop !== "string") loop.remove();
    },
    place: () => {
      assert.ok(typeof loop !== "string");
      return placeIn(loop.folder, quota);
    },
  };
}

const REFLINK_CASE: Case = {
  title: "copies and snapshots share blocks with their source",
  async run(fixture) {
    const abilities = await fixture.driver.abilities(contextOf());
    assert.equal(abilities.find(({ name }) => name === "reflink")?.available, true);
    const source = await fixture.create(0);
    const path = source.source.kind === "directory" ? source.source.path : "";
    writeFileSync(join(path, "large"), Buffer.alloc(64 * MIB, 7));
    spawnSync("sync", ["-f", path]);
    const before = statfsSync(path).bfree;
    await fixture.snapshot(0, source);
    await fixture.copyVolume(source, fixture.volume(1), contextOf());
    spawnSync("sync", ["-f", path]);
    const used = (before - statfsSync(path).bfree) * statfsSync(path).bsize;
    assert.ok(used < 16 * MIB, `two copies took ${used} bytes`);
  },
};

const QUOTA_CASE: Case = {
  title: "a volume cannot grow beyond its size, and can after it was expanded",
  async run(fixture) {
    const volume = await fixture.create(0, { sizeBytes: 1024 * MIB });
    const path = volume.source.kind === "directory" ? volume.source.path : "";
    // Not as root, whom ext4 lets through.
    const write = (mib: number): number | null =>
      spawnSync("setpriv", [
        "--reuid=65534",
        "--clear-groups",
        "fallocate",
        "--length",
        `${mib}MiB`,
        `${path}/file`,
      ]).status;
    spawnSync("chmod", ["777", path]);
    for (const folder of [join(path, ".."), join(path, "../..")])
      spawnSync("chmod", ["755", folder]);
    assert.equal(write(500), 0);
    assert.notEqual(write(1100), 0);
    await fixture.driver.volumeExpand?.(volume, 2048 * MIB, contextOf());
    assert.equal(write(1100), 0);
    const copy = await fixture.copyVolume(volume, fixture.volume(1), contextOf());
    assert.equal(copy.broken, undefined);
  },
};

const ADOPT_CASE: Case = {
  title: "a volume made without limits gets one with its first expand, data and all",
  async run(fixture) {
    const root = await rootOf(fixture);
    const free = await DRIVERS.vfs.open({ root, quota: "off" }, contextOf());
    const volume = await free.volumeCreate(fixture.volume(0), contextOf());
    await free.close();
    const path = join(root, "vol/vfs-000");
    fillTree(path);
    for (const folder of [join(root, ".."), root, join(root, "vol")]) chmodSync(folder, 0o755);
    mkdirSync(join(path, "open"));
    chmodSync(join(path, "open"), 0o777);
    await fixture.driver.volumeExpand?.(volume, 1024 * MIB, contextOf());
    const fill = spawnSync("setpriv", [
      "--reuid=65534",
      "--clear-groups",
      "fallocate",
      "--length",
      "1100MiB",
      join(path, "open/file"),
    ]);
    assert.notEqual(fill.status, 0);
  },
};

testDriver("vfs", { ...ALWAYS, place: () => placeIn(tmpdir(), "auto") }, [
  ...RECORD_CASES,
  ...PLANTED_CASES,
  ...HOST_CASES,
]);

testDriver("vfs on btrfs", loopHarness({ type: "btrfs", sizeMiB: 512 }), [
  REFLINK_CASE,
  ...PLANTED_CASES,
]);
testDriver("vfs on xfs", loopHarness({ type: "xfs", sizeMiB: 512 }), [
  REFLINK_CASE,
  ...PLANTED_CASES,
]);

const XFS_QUOTA: LoopOptions = { type: "xfs", sizeMiB: 6144, mountOptions: ["prjquota"] };
const EXT4_QUOTA: LoopOptions = {
  type: "ext4",
  sizeMiB: 6144,
  mkfsArgs: ["-O", "quota,project", "-E", "quotatype=prjquota"],
  mountOptions: ["prjquota"],
};

testDriver("vfs on xfs with project quota", loopHarness(XFS_QUOTA, "require"), [
  QUOTA_CASE,
  ADOPT_CASE,
]);
testDriver("vfs on ext4 with project quota", loopHarness(EXT4_QUOTA, "require"), [
  QUOTA_CASE,
  ADOPT_CASE,
]);

const SMALL: LoopOptions = { type: "ext4", sizeMiB: 16 };

describe("vfs on a file system that is full or read-only", { skip: loopMissing(SMALL) }, () => {
  const onSmall = async (act: (fixture: Fixture, loop: LoopFileSystem) => Promise<void>) => {
    const loop = makeLoop(SMALL);
    assert.ok(typeof loop !== "string", "it could be made a moment ago");
    try {
      const place = (): Promise<Place> => placeIn(loop.folder, "auto");
      await act(await Fixture.open({ ...ALWAYS, place }), loop);
    } finally {
      loop.remove();
    }
  };

  it("a copy that does not fit is refused and leaves nothing", () =>
    onSmall(async (fixture) => {
      const source = await fixture.create(0);
      const path = source.source.kind === "directory" ? source.source.path : "";
      writeFileSync(join(path, "file"), Buffer.alloc(9 * MIB, 1));
      const full = { code: "resource-exhausted", message: /file system is full/ };
      await assert.rejects(fixture.copyVolume(source, fixture.volume(1), contextOf()), full);
      await assert.rejects(fixture.snapshot(0, source), full);
      assert.deepEqual(await fixture.list(), { volumes: [source], snapshots: [] });
      await fixture.empty();
    }));

  it("a create on a full disk is refused and leaves nothing", () =>
    onSmall(async (fixture) => {
      const source = await fixture.create(0);
      const path = source.source.kind === "directory" ? source.source.path : "";
      spawnSync("dd", ["if=/dev/zero", `of=${path}/file`, "bs=64k"]);
      let made = 1;
      const create = async (): Promise<void> => {
        for (; made < 500; made += 1) await fixture.create(made);
      };
      await assert.rejects(create(), { code: "resource-exhausted" });
      const { volumes } = await fixture.list();
      assert.equal(volumes.length, made);
      assert.ok(volumes.every(({ broken }) => broken === undefined));
      await fixture.empty();
    }));

  it("a read-only root is read and not changed", () =>
    onSmall(async (fixture, loop) => {
      const volume = await fixture.create(0);
      await fixture.driver.close();
      loop.remountReadOnly();
      const driver = await fixture.place.open(contextOf());
      assert.deepEqual((await driver.list(contextOf())).volumes, [volume]);
      const refused = { code: "failed-precondition", message: /read-only/ };
      await assert.rejects(driver.volumeCreate(fixture.volume(1), contextOf()), refused);
      await assert.rejects(driver.volumeRemove(volume.id, contextOf()), refused);
      await assert.rejects(driver.volumeUpdate({ ...volume, name: "new" }, contextOf()), refused);
      assert.deepEqual((await driver.list(contextOf())).volumes, [volume]);
      const abilities = await driver.abilities(contextOf());
      assert.equal(abilities.find(({ name }) => name === "write")?.available, false);
      await driver.close();
    }));
});

describe("opening vfs", () => {
  const inFolder = async (act: (folder: string) => Promise<void>): Promise<void> => {
    const folder = await mkdtemp(join(tmpdir(), "vfs-open-"));
    try {
      await act(folder);
    } finally {
      await rm(folder, { recursive: true });
    }
  };

  it("makes a root that is missing, for the server's user only", () =>
    inFolder(async (folder) => {
      const root = join(folder, "a/b");
      const driver = await DRIVERS.vfs.open({ root, quota: "auto" }, contextOf());
      assert.equal(statSync(root).mode & 0o777, 0o700);
      assert.deepEqual((await readdir(root)).toSorted(), ["snap", "vol"]);
      await driver.close();
    }));

  it("takes vfs in the lib folder when no root is given", () =>
    inFolder(async (folder) => {
      const context = { ...contextOf(), libFolder: folder };
      await (await DRIVERS.vfs.open({ quota: "auto" }, context)).close();
      assert.deepEqual((await readdir(join(folder, "vfs"))).toSorted(), ["snap", "vol"]);
    }));

  it("follows a link to the root, which is the operator's to set", () =>
    inFolder(async (folder) => {
      await mkdir(join(folder, "real"));
      await symlink("real", join(folder, "link"));
      const config = { root: join(folder, "link"), quota: "auto" };
      const driver = await DRIVERS.vfs.open(config, contextOf());
      assert.deepEqual((await readdir(join(folder, "real"))).toSorted(), ["snap", "vol"]);
      await driver.close();
    }));

  it("says so when the root is a file", () =>
    inFolder(async (folder) => {
      writeFileSync(join(folder, "file"), "");
      const open = DRIVERS.vfs.open({ root: join(folder, "file"), quota: "auto" }, contextOf());
      await assert.rejects(open, { name: "StorageError", message: /cannot open .*file/ });
    }));

  it("refuses to start without a quota that is required", () =>
    inFolder(async (folder) => {
      const open = DRIVERS.vfs.open({ root: join(folder, "r"), quota: "require" }, contextOf());
      await assert.rejects(open, { code: "failed-precondition", message: /quota/ });
    }));

  it("checks its keys", () => {
    const check = (value: unknown): boolean => v.safeParse(DRIVERS.vfs.config, value).success;
    assert.ok(check({ root: "/var/lib/x" }) && check({}) && check({ quota: "off" }));
    for (const bad of [
      { root: "relative" },
      { root: 1 },
      { root: "/a\0" },
      { quota: "x" },
      { x: 1 },
    ])
      assert.equal(check(bad), false, JSON.stringify(bad));
  });

  it("passes a door for each folder it makes", () =>
    inFolder(async (folder) => {
      const faults = new CountedFaults(1, "fail");
      const open = DRIVERS.vfs.open(
        { root: join(folder, "r"), quota: "auto" },
        contextOf({ faults }),
      );
      await assert.rejects(open, /planned failure/);
    }));
});
