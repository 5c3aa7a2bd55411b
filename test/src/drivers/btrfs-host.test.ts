/** How btrfs opens, which quota it takes, and what it does on file systems that are full or read-only. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { DRIVERS } from "@libstorage/server";
import type { StorageDriver } from "@libstorage/server";
import { GIB } from "@libstorage/model";
import * as v from "valibot";
import { contextOf, Fixture, snapshotOf, volumeOf } from "../conformance/fixture.js";
import type { Harness } from "../conformance/fixture.js";
import { run } from "../conformance/tree.js";
import type { LoopFileSystem, LoopOptions } from "../loop.js";
import { btrfsMissing, makeBtrfs, placeIn, switchQuotaOn } from "./btrfs-loop.js";
import { pathOf } from "./btrfs-traps.js";

const skip = btrfsMissing();
const REFUSED = "failed-precondition";

async function onLoop(
  act: (loop: LoopFileSystem) => Promise<void>,
  options: Partial<LoopOptions> = {},
): Promise<void> {
  const loop = makeBtrfs(options);
  try {
    await act(loop);
  } finally {
    loop.remove();
  }
}

const open = (root: string, quota = "auto"): Promise<StorageDriver> =>
  DRIVERS.btrfs.open({ root, quota }, contextOf());

async function quotaOf(driver: StorageDriver): Promise<string> {
  const abilities = await driver.abilities(contextOf());
  return abilities.find(({ name }) => name === "quota")?.detail ?? "";
}

describe("opening btrfs", { skip }, () => {
  it("makes a root that is missing, for the server's user only", () =>
    onLoop(async ({ folder }) => {
      const root = join(folder, "a/b");
      await (await open(root)).close();
      assert.equal(statSync(root).mode & 0o777, 0o700);
      assert.deepEqual(readdirSync(root).toSorted(), ["snap", "vol"]);
    }));

  it("makes nothing on another file system, as when the disk is not mounted", async () => {
    const folder = mkdtempSync(join(tmpdir(), "no-btrfs-"));
    try {
      const refused = { code: REFUSED, message: /is not on a btrfs file system; mount it first/ };
      await assert.rejects(open(join(folder, "a/b")), refused);
      assert.deepEqual(readdirSync(folder), []);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("works below a subvolume that is mounted without the top of its file system", () =>
    onLoop(async ({ folder }) => {
      run("btrfs", ["subvolume", "create", join(folder, "@data")]);
      const target = mkdtempSync(join(tmpdir(), "subvolume-"));
      const device = run("findmnt", ["-no", "SOURCE", "--target", folder]).trim();
      run("mount", ["-t", "btrfs", "-o", "subvol=@data", device, target]);
      try {
        const driver = await open(join(target, "root"), "require");
        const volume = await driver.volumeCreate(volumeOf(driver, 0), contextOf());
        run("btrfs", ["subvolume", "create", join(pathOf(volume), "inner")]);
        const copy = driver.volumeCopy?.(volume, volumeOf(driver, 1), contextOf());
        await assert.rejects(copy ?? Promise.resolve(), { message: /btrfs-000\/inner/ });
        await driver.volumeRemove(volume.id, contextOf());
        assert.deepEqual(readdirSync(join(target, "root/vol")), []);
        await driver.close();
      } finally {
        run("umount", [target]);
        rmSync(target, { recursive: true });
      }
    }));

  it("checks its keys", () => {
    const check = (value: unknown): boolean => v.safeParse(DRIVERS.btrfs.config, value).success;
    assert.ok(check({ root: "/srv/x" }) && check({ root: "/srv/x", quota: "simple" }));
    for (const bad of [{}, { root: "relative" }, { root: "/a\0" }, { root: "/a", quota: "on" }])
      assert.equal(check(bad), false, JSON.stringify(bad));
  });
});

describe("what btrfs has answered", { skip }, () => {
  it("is on the disk, whatever becomes of the host", () =>
    onLoop(async (loop) => {
      const driver = await open(join(loop.folder, "root"));
      const image = join(loop.folder, "../image");
      const copies: string[] = [];
      // What the device has got by now, as after a power cut.
      const cut = async (): Promise<void> => {
        copies.push(`${image}-${copies.length}`);
        await copyFile(image, copies.at(-1) ?? "");
      };
      const volume = await driver.volumeCreate(volumeOf(driver, 0), contextOf());
      await cut();
      const snapshot = snapshotOf(driver, 0, volume);
      await driver.snapshots?.snapshotCreate(volume, snapshot, contextOf());
      await cut();
      await driver.volumeCopy?.(volume, volumeOf(driver, 1), contextOf());
      await cut();
      await driver.volumeRemove(volume.id, contextOf());
      await cut();
      await driver.close();
      run("umount", [loop.folder]);
      const found: string[][] = [];
      for (const copy of copies) {
        run("mount", ["-o", "loop", copy, loop.folder]);
        const late = await open(join(loop.folder, "root"));
        const { volumes, snapshots } = await late.list(contextOf());
        found.push(
          [...volumes, ...snapshots].map(({ id, broken }) => `${id} ${broken ?? "whole"}`),
        );
        await late.close();
        run("umount", [loop.folder]);
      }
      const [first, snap, second] = [volume.id, snapshot.id, volumeOf(driver, 1).id].map(
        (id) => `${id} whole`,
      );
      assert.deepEqual(found, [[first], [first, snap], [first, second, snap], [second, snap]]);
    }));
});

describe("quota of btrfs", { skip }, () => {
  it("auto switches nothing on, and says so", () =>
    onLoop(async ({ folder }) => {
      const driver = await open(join(folder, "root"));
      assert.match(await quotaOf(driver), /not enforced: no quota is on/);
      await driver.volumeCreate(volumeOf(driver, 0), contextOf());
      assert.notEqual(spawnSync("btrfs", ["qgroup", "show", folder]).status, 0);
      await driver.close();
    }));

  it("require switches one on", () =>
    onLoop(async ({ folder }) => {
      const driver = await open(join(folder, "root"), "require");
      assert.match(await quotaOf(driver), /^simple quota|^quota groups/);
      await driver.close();
    }));

  it(
    "the other kind is not switched over: it may serve others",
    { skip: btrfsMissing("simple") },
    () =>
      onLoop(async ({ folder }) => {
        assert.equal(switchQuotaOn(folder, "simple"), undefined);
        const refused = { code: REFUSED, message: /has simple quota on, which may serve others/ };
        await assert.rejects(open(join(folder, "root"), "qgroup"), refused);
        const driver = await open(join(folder, "root"), "require");
        assert.match(await quotaOf(driver), /^simple quota/);
        await driver.close();
      }),
  );

  it("simple quota that the tool is too old to switch on is refused in these words", () =>
    onLoop(async ({ folder }) => {
      try {
        const driver = await open(join(folder, "root"), "simple");
        assert.match(await quotaOf(driver), /^simple quota/);
        await driver.close();
      } catch (error) {
        assert.match(String(error), /takes btrfs-progs 6\.7 and Linux 6\.7/);
      }
    }));

  it("switched off by hand, no volume is made without the limit that is wanted", () =>
    onLoop(async ({ folder }) => {
      const driver = await open(join(folder, "root"), "qgroup");
      const volume = await driver.volumeCreate(volumeOf(driver, 0), contextOf());
      run("btrfs", ["quota", "disable", folder]);
      const refused = { code: REFUSED, message: /quota was switched off/ };
      await assert.rejects(driver.volumeCreate(volumeOf(driver, 1), contextOf()), refused);
      await assert.rejects(
        driver.volumeExpand?.(volume, 2 * GIB, contextOf()) ?? Promise.resolve(),
        refused,
      );
      assert.deepEqual((await driver.list(contextOf())).volumes, [volume]);
      assert.equal(readdirSync(join(folder, "root/vol")).length, 2);
      await driver.close();
    }));
});

describe("btrfs on a file system that is full or read-only", { skip }, () => {
  const harnessOn = (folder: string): Harness => ({
    skip: false,
    isDurable: true,
    hasFolders: true,
    hasDoors: true,
    place: async () => placeIn(folder),
  });

  it("a read-only root is read and not changed", () =>
    onLoop(async (loop) => {
      const fixture = await Fixture.open(harnessOn(loop.folder));
      const volume = await fixture.create(0);
      const snapshot = await fixture.snapshot(0, volume);
      await fixture.driver.close();
      loop.remountReadOnly();
      const driver = await fixture.place.open(contextOf());
      const listing = { volumes: [volume], snapshots: [snapshot] };
      assert.deepEqual(await driver.list(contextOf()), listing);
      const refused = { code: REFUSED, message: /read-only/ };
      const tries: readonly (() => Promise<unknown> | undefined)[] = [
        () => driver.volumeCreate(fixture.volume(1), contextOf()),
        () => driver.volumeRemove(volume.id, contextOf()),
        () => driver.volumeUpdate({ ...volume, name: "new" }, contextOf()),
        () => driver.volumeCopy?.(volume, fixture.volume(1), contextOf()),
        () => driver.snapshots?.snapshotRemove(snapshot.id, contextOf()),
      ];
      for (const attempt of tries) await assert.rejects(attempt() ?? Promise.resolve(), refused);
      assert.deepEqual(await driver.list(contextOf()), listing);
      const abilities = await driver.abilities(contextOf());
      assert.equal(abilities.find(({ name }) => name === "write")?.available, false);
      await driver.close();
    }));

  it("on a full one creates are refused and leave nothing, and removing makes room", () =>
    onLoop(
      async (loop) => {
        const fixture = await Fixture.open(harnessOn(loop.folder));
        const source = await fixture.create(0);
        spawnSync("dd", ["if=/dev/zero", `of=${pathOf(source)}/file`, "bs=64k"]);
        let made = 1;
        const create = async (): Promise<void> => {
          for (; made < 2000; made += 1) await fixture.create(made);
        };
        await assert.rejects(create(), { code: "resource-exhausted", message: /full/ });
        const { volumes } = await fixture.list();
        assert.equal(volumes.length, made);
        assert.ok(volumes.every(({ broken }) => broken === undefined));
        await fixture.driver.volumeRemove(source.id, contextOf());
        run("btrfs", ["filesystem", "sync", loop.folder]);
        run("btrfs", ["subvolume", "sync", loop.folder]);
        await fixture.create(made);
        await fixture.empty();
      },
      { sizeMiB: 16, mkfsArgs: ["--mixed"] },
    ));

  it("a root that vanishes, as when it is unmounted, is named", () =>
    onLoop(async (loop) => {
      const driver = await open(join(loop.folder, "root"));
      const target = mkdtempSync(join(tmpdir(), "over-"));
      mkdirSync(join(target, "root"));
      writeFileSync(join(target, "file"), "");
      run("mount", ["--bind", target, loop.folder]);
      try {
        const refused = { code: REFUSED, message: /vol is missing; put the folder back/ };
        await assert.rejects(driver.list(contextOf()), refused);
        await assert.rejects(driver.volumeCreate(volumeOf(driver, 0), contextOf()), refused);
        assert.deepEqual(readdirSync(join(target, "root")), []);
      } finally {
        run("umount", [loop.folder]);
        rmSync(target, { recursive: true });
      }
      await driver.close();
    }));
});
