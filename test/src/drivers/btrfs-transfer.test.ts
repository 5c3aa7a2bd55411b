/** Copies of volumes from one btrfs service to another: on one file system, and from one to the next. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { GIB } from "@libstorage/model";
import { DRIVERS, SILENT, Storage } from "@libstorage/server";
import type {
  Caller,
  Exec,
  LiveTask,
  StorageDriver,
  StorageService,
  VolumeRecord,
} from "@libstorage/server";
import { contextOf, volumeOf } from "../conformance/fixture.js";
import { attributesMissing, describeAttributes, describeTree } from "../conformance/tree.js";
import { fillTree, run } from "../conformance/tree.js";
import { makeScratch } from "../faults/folders.js";
import { caller } from "../faults/world.js";
import type { LoopFileSystem } from "../loop.js";
import { btrfsMissing, makeBtrfs, switchQuotaOn } from "./btrfs-loop.js";
import { pathOf } from "./btrfs-traps.js";

const MIB = 1024 ** 2;
const fields = {};
const NAMES = ["one", "two", "far", "small"] as const;
type Name = (typeof NAMES)[number];

let near: LoopFileSystem;
let other: LoopFileSystem;
let little: LoopFileSystem;
let roots: Record<Name, string>;
let storage: Storage | undefined;
const scratch = makeScratch("btrfs-transfer");

/** Services `one` and `two` share a file system; `far` has another one, and `small` a small one. */
async function open(): Promise<(name: Name | "folders") => StorageService> {
  const settings = { shareable: false, uniqueNames: false };
  const folder = mkdtempSync(join(scratch.path, "server-"));
  mkdirSync(join(folder, "journal"));
  const opened = await Storage.open({
    services: [
      ...NAMES.map((name) => ({
        name,
        driver: DRIVERS.btrfs,
        config: { root: roots[name], quota: "auto" },
        settings,
      })),
      {
        name: "folders",
        driver: DRIVERS.vfs,
        config: { root: join(folder, "vfs"), quota: "off" },
        settings,
      },
    ],
    journalFolder: join(folder, "journal"),
    libFolder: join(folder, "lib"),
    log: SILENT,
  });
  storage = opened;
  return (name) => opened.service(name);
}

/** Nothing but whole volumes. */
function checkNoLeftovers(): void {
  for (const root of Object.values(roots)) {
    const below = readdirSync(root).filter((name) => name !== ".libstorage.lock");
    assert.deepEqual(below.toSorted(), ["snap", "vol"]);
    const names = readdirSync(join(root, "vol"));
    for (const name of names)
      if (!name.endsWith(".json")) assert.ok(names.includes(`${name}.json`), `left: ${name}`);
    assert.equal(names.length % 2, 0, names.join(" "));
  }
}

async function create(service: StorageService, name = "source", sizeBytes = GIB) {
  return service.volumeCreate({ name, sizeBytes, fields: { owner: "test" } }, caller());
}

const copy = (
  to: StorageService,
  from: StorageService,
  { id }: { id: string },
  more: Partial<Caller> = {},
) => to.volumeCopyFrom(from, id, { name: "copy", fields }, { ...caller(), ...more });

function allocate(volume: VolumeRecord, mib: number): string {
  const args = ["--length", `${mib}MiB`, join(pathOf(volume), "allocated")];
  return spawnSync("fallocate", args, { encoding: "utf8" }).stderr;
}

/** Random bytes, so that nothing shrinks on the way. */
function fill(volume: VolumeRecord, mib: number): void {
  run("dd", ["if=/dev/urandom", `of=${pathOf(volume)}/large`, "bs=1M", `count=${mib}`]);
}

describe("copies between btrfs services", { skip: btrfsMissing("qgroup") }, () => {
  before(() => {
    near = makeBtrfs();
    other = makeBtrfs();
    little = makeBtrfs({ sizeMiB: 128, mkfsArgs: ["--mixed"] });
    for (const { folder } of [near, other])
      assert.equal(switchQuotaOn(folder, "qgroup"), undefined);
    roots = {
      one: join(near.folder, "one"),
      two: join(near.folder, "two"),
      far: join(other.folder, "far"),
      small: join(little.folder, "small"),
    };
  });
  afterEach(async () => {
    if (storage === undefined) return;
    for (const service of storage.services.values())
      for (const { id } of service.inventory.volumes.all())
        await service.volumeRemove(id, true, caller());
    await storage.close();
    storage = undefined;
    checkNoLeftovers();
  });
  after(async () => {
    for (const loop of [near, other, little]) loop.remove();
    await scratch.remove();
  });

  for (const [where, to] of [
    ["on the same file system", "two"],
    ["on another file system", "far"],
  ] as const)
    describe(where, () => {
      it("carries all that is in the volume", { skip: attributesMissing() ?? false }, async () => {
        const service = await open();
        const source = await create(service("one"));
        fillTree(pathOf(source));
        run("setfattr", ["-n", "user.root", "-v", "kept", pathOf(source)]);
        run("setfacl", ["-m", "u:12345:rw", join(pathOf(source), "plain")]);
        const made = await copy(service(to), service("one"), source);
        assert.deepEqual(describeTree(pathOf(made)), describeTree(pathOf(source)));
        assert.deepEqual(describeAttributes(pathOf(made)), describeAttributes(pathOf(source)));
        const { name, sizeBytes, fields: labels } = service(to).volume(made.id);
        assert.deepEqual(
          { name, sizeBytes, labels },
          { name: "copy", sizeBytes: GIB, labels: { owner: "test" } },
        );
        checkNoLeftovers();
      });

      it("makes a volume that is independent of its source", async () => {
        const service = await open();
        const source = await create(service("one"));
        const file = (volume: VolumeRecord): string => join(pathOf(volume), "file");
        writeFileSync(file(source), "first");
        const made = await copy(service(to), service("one"), source);
        appendFileSync(file(made), " copy");
        appendFileSync(file(source), " source");
        assert.equal(readFileSync(file(made), "utf8"), "first copy");
        assert.equal(readFileSync(file(source), "utf8"), "first source");
        await service("one").volumeRemove(source.id, false, caller());
        assert.equal(readFileSync(file(made), "utf8"), "first copy");
        const again = await copy(service("one"), service(to), made);
        assert.equal(readFileSync(file(again), "utf8"), "first copy");
      });

      it("limits the copy as its source is limited", async () => {
        const service = await open();
        const made = await copy(service(to), service("one"), await create(service("one")));
        assert.match(allocate(made, 1100), /Disk quota exceeded/);
        const free = await copy(
          service(to),
          service("one"),
          await create(service("one"), "free", 0),
        );
        assert.equal(allocate(free, 1100), "");
      });

      it("refuses a volume with subvolumes in it, and leaves nothing", async () => {
        const service = await open();
        const source = await create(service("one"));
        run("btrfs", ["subvolume", "create", join(pathOf(source), "inner")]);
        await assert.rejects(copy(service(to), service("one"), source), {
          code: "failed-precondition",
          message: /has subvolumes in it .*inner/,
        });
        assert.deepEqual(service(to).inventory.volumes.all(), []);
        checkNoLeftovers();
      });

      it("refuses a source that was replaced, which the inventory may not know yet", async () => {
        const service = await open();
        const source = await create(service("one"));
        const path = pathOf(source);
        run("btrfs", ["subvolume", "delete", path]);
        symlinkSync(roots.two, path);
        await assert.rejects(copy(service(to), service("one"), source), {
          code: "failed-precondition",
          message: /symbolic link/,
        });
      });

      it("answers the same request once more with the same copy", async () => {
        const service = await open();
        const source = await create(service("one"));
        const key = { idempotencyKey: `key ${to}` };
        const first = await copy(service(to), service("one"), source, key);
        assert.deepEqual(await copy(service(to), service("one"), source, key), first);
        const second = await create(service("one"));
        await assert.rejects(copy(service(to), service("one"), second, key), /used for another/);
      });
    });

  it("shares its blocks with its source where they are on one file system", async () => {
    const service = await open();
    const source = await create(service("one"));
    fill(source, 64);
    run("sync", ["-f", near.folder]);
    const free = statfsSync(near.folder).bfree;
    await copy(service("two"), service("one"), source);
    run("sync", ["-f", near.folder]);
    const used = (free - statfsSync(near.folder).bfree) * statfsSync(near.folder).bsize;
    assert.ok(used < 8 * MIB, `it took ${used} bytes`);
  });

  it("tells its progress in bytes", async () => {
    const service = await open();
    const source = await create(service("one"));
    // Long enough to be seen in its middle.
    fill(source, 300);
    const seen: (readonly [number, number, string])[] = [];
    await copy(service("far"), service("one"), source, {
      onTask: (task: LiveTask) =>
        task.addListener(({ progress }) => {
          if (progress !== undefined) seen.push([progress.done, progress.total, progress.unit]);
        }),
    });
    const [, total] = seen[0] ?? [0, 0, ""];
    assert.ok(total >= 300 * MIB && total < 312 * MIB, String(total));
    assert.deepEqual(seen.at(-1), [total, total, "bytes"]);
    assert.ok(
      seen.some(([done]) => done > 0 && done < total),
      JSON.stringify(seen),
    );
  });

  it("leaves nothing when it is cancelled in the middle", async () => {
    const service = await open();
    const source = await create(service("one"));
    fill(source, 300);
    const copying = copy(service("far"), service("one"), source, {
      onTask: (task: LiveTask) =>
        task.addListener(({ progress }) => {
          const { done = 0, total = 0 } = progress ?? {};
          if (done > 0 && done < total) task.cancel("this test");
        }),
    });
    await assert.rejects(copying, { code: "cancelled" });
    assert.deepEqual(service("far").inventory.volumes.all(), []);
    checkNoLeftovers();
    assert.equal((await copy(service("far"), service("one"), source)).id, "btrfs-001");
  });

  it("that does not fit is refused, and leaves nothing", async () => {
    const service = await open();
    const source = await create(service("one"));
    fill(source, 200);
    await assert.rejects(copy(service("small"), service("one"), source), {
      code: "resource-exhausted",
      message: /create volume btrfs-000: the file system is full/,
    });
    assert.deepEqual(service("small").inventory.volumes.all(), []);
    checkNoLeftovers();
    await service("small").volumeCreate({ name: "fits", fields }, caller());
  });

  it("into a service with another driver is refused before anything is done", async () => {
    const service = await open();
    const source = await create(service("one"));
    const refused = {
      code: "unimplemented",
      message: /vfs driver .* takes no volumes of service one/,
    };
    await assert.rejects(copy(service("folders"), service("one"), source), refused);
    assert.deepEqual(storage?.journal.openIntents(), []);
    await assert.rejects(copy(service("two"), service("one"), { id: "btrfs-999" }), {
      code: "not-found",
    });
  });

  it("makes others wait for the source alone", async () => {
    const service = await open();
    const source = await create(service("one"));
    fill(source, 200);
    const bystander = await create(service("one"), "bystander");
    const ended: string[] = [];
    const note = (what: string) => () => void ended.push(what);
    await Promise.all([
      copy(service("far"), service("one"), source).then(note("copy")),
      service("one")
        .volumeExpand(source.id, 2 * GIB, caller())
        .then(note("source")),
      service("one")
        .volumeExpand(bystander.id, 2 * GIB, caller())
        .then(note("bystander")),
      create(service("far"), "new").then(note("new")),
    ]);
    assert.deepEqual(ended.slice(0, 2).toSorted(), ["bystander", "new"]);
    assert.deepEqual(ended.slice(2), ["copy", "source"]);
  });

  it("is not disturbed by a list of the service it is taken from", async () => {
    const service = await open();
    const source = await create(service("one"));
    fill(source, 100);
    let isDone = false;
    const copying = copy(service("far"), service("one"), source).finally(() => (isDone = true));
    while (!isDone) {
      await service("one").driver.list(contextOf());
      await sleep(10);
    }
    assert.ok(existsSync(join(pathOf(await copying), "large")));
  });
});

describe("what a cut stream leaves", { skip: btrfsMissing() }, () => {
  let drivers: StorageDriver[] = [];
  before(() => {
    near = makeBtrfs();
    other = makeBtrfs();
    roots = { one: join(near.folder, "one"), far: join(other.folder, "far") } as typeof roots;
  });
  afterEach(async () => {
    for (const driver of drivers) await driver.close();
    drivers = [];
  });
  after(() => [near, other].forEach((loop) => loop.remove()));

  const openBoth = async (): Promise<[StorageDriver, StorageDriver]> => {
    const [from, to] = await Promise.all(
      [roots.one, roots.far].map((root) =>
        DRIVERS.btrfs.open({ root, quota: "auto" }, contextOf()),
      ),
    );
    assert.ok(from !== undefined && to !== undefined);
    drivers = [from, to];
    return [from, to];
  };

  /** The stream ends after so many bytes, and the sender says that all is well. */
  const cutAfter = (bytes: number): Exec => {
    const { exec } = contextOf();
    return (file, args, signal, options) =>
      args[0] === "send"
        ? exec("sh", ["-c", `btrfs "$@" | head -c ${bytes}; :`, file, ...args], signal, options)
        : exec(file, args, signal, options);
  };

  for (const bytes of [0, 40, 70_000, 500_000])
    it(`is removed: ${bytes} bytes`, async () => {
      const [from, to] = await openBoth();
      const source = await from.volumeCreate(volumeOf(from, 0), contextOf());
      writeFileSync(join(pathOf(source), "large"), Buffer.alloc(MIB, "x"));
      const context = { ...contextOf(), exec: cutAfter(bytes) };
      await assert.rejects(to.volumeCopyFrom?.(source, volumeOf(to, 0), context) ?? assert.fail());
      checkNoLeftovers();
      assert.deepEqual(readdirSync(join(roots.far, "vol")), []);
      await to.volumeCopyFrom?.(source, volumeOf(to, 0), contextOf());
      for (const driver of [from, to]) await driver.volumeRemove(source.id, contextOf());
    });

  it("is found by its name at the next start", async () => {
    const sent = join(roots.one, ".tmp-sent-0");
    const partly = join(roots.far, "vol/.tmp-copy-btrfs-000");
    for (const path of [sent, partly, join(partly, "inner")])
      run("btrfs", ["subvolume", "create", path]);
    writeFileSync(join(partly, "inner/file"), "");
    run("btrfs", ["property", "set", sent, "ro", "true"]);
    run("btrfs", ["property", "set", join(partly, "inner"), "ro", "true"]);
    mkdirSync(join(roots.one, "not ours"));
    for (const driver of await openBoth()) await driver.list(contextOf());
    for (let tries = 0; tries < 250 && (existsSync(sent) || existsSync(partly)); tries += 1)
      await sleep(20);
    assert.deepEqual(readdirSync(roots.one).toSorted(), ["not ours", "snap", "vol"]);
    assert.deepEqual(readdirSync(join(roots.far, "vol")), []);
    rmSync(join(roots.one, "not ours"), { recursive: true });
  });
});
