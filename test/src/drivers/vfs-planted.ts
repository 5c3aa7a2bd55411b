/** What is planted in the root, ids that climb, mounts. */
import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { VolumeRecord } from "@libstorage/server";
import { attachmentOf, contextOf, snapshotOf } from "../conformance/fixture.js";
import type { Case, Fixture } from "../conformance/fixture.js";
import { run } from "../conformance/tree.js";
import { rootOf } from "./vfs-records.js";

const CLIMBING = ["../vfs-000", "..", ".", "", "a/b", "/etc", "a\0b", "-rf", ".tmp-x", "x.json"];

/** A folder outside of the root with a file that nothing may touch. */
export async function withOutside(act: (outside: string) => Promise<void>): Promise<void> {
  const outside = mkdtempSync(join(tmpdir(), "outside-"));
  try {
    writeFileSync(join(outside, "precious"), "data");
    await act(outside);
    assert.deepEqual(readdirSync(outside), ["precious"]);
    assert.equal(readFileSync(join(outside, "precious"), "utf8"), "data");
  } finally {
    rmSync(outside, { recursive: true });
  }
}

/** Each method that changes something, with an id put in. */
const CHANGES: Readonly<
  Record<string, (fixture: Fixture, id: string, good: VolumeRecord) => Promise<unknown>>
> = {
  volumeCreate: ({ driver }, id, good) => driver.volumeCreate({ ...good, id }, contextOf()),
  volumeRemove: ({ driver }, id) => driver.volumeRemove(id, contextOf()),
  volumeUpdate: ({ driver }, id, good) => driver.volumeUpdate({ ...good, id }, contextOf()),
  volumeAttach: (fixture, id, good) => fixture.attach({ ...good, id }, "host-a"),
  volumeDetach: (fixture, id, good) => fixture.detach({ ...good, id }, "host-a", true),
  "volumeCopy from": (fixture, id, good) =>
    fixture.copyVolume({ ...good, id }, fixture.volume(7), contextOf()),
  "volumeCopy to": (fixture, id, good) =>
    fixture.copyVolume(good, fixture.volume(7, { id }), contextOf()),
  volumeExpand: async ({ driver }, id, good) =>
    driver.volumeExpand?.({ ...good, id }, 2 ** 32, contextOf()),
  "snapshotCreate of": (fixture, id, good) => fixture.snapshot(0, { ...good, id }),
  "snapshotCreate to": (fixture, id, good) => fixture.snapshot(0, good, { id }),
  snapshotRemove: ({ snapshots }, id) => snapshots.snapshotRemove(id, contextOf()),
  "snapshotCopy from": (fixture, id, good) => {
    const source = snapshotOf(fixture.driver, 0, good, { id });
    return fixture.copySnapshot(source, snapshotOf(fixture.driver, 1, good), contextOf());
  },
  "snapshotCopy to": async (fixture, id, good) => {
    const source = await fixture.snapshot(0, good);
    return fixture.copySnapshot(source, { ...source, id }, contextOf());
  },
  "volumeCreateFromSnapshot from": (fixture, id, good) =>
    fixture.snapshots.volumeCreateFromSnapshot(
      snapshotOf(fixture.driver, 0, good, { id }),
      fixture.volume(7),
      contextOf(),
    ),
  "volumeCreateFromSnapshot to": async (fixture, id, good) =>
    fixture.snapshots.volumeCreateFromSnapshot(
      await fixture.snapshot(0, good),
      fixture.volume(7, { id }),
      contextOf(),
    ),
};

const CLIMB_CASES = Object.entries(CHANGES).map(([name, change]): Case => ({
  title: `${name} refuses ids that climb or are no file names`,
  async run(fixture) {
    const root = await rootOf(fixture);
    const good = await fixture.create(0);
    const before = run("find", [root]);
    for (const id of [...CLIMBING, "x".repeat(200)])
      await assert.rejects(change(fixture, id, good), { code: "invalid-argument" }, id);
    // The snapshot that some of the changes start from.
    const { snapshots } = await fixture.list();
    for (const { id } of snapshots) await fixture.snapshots.snapshotRemove(id, contextOf());
    assert.equal(run("find", [root]), before);
  },
}));

const LINK_CASES: readonly Case[] = [
  {
    title: "a link planted as a record is not followed",
    run: (fixture) =>
      withOutside(async (outside) => {
        const root = await rootOf(fixture);
        const good = await fixture.create(0);
        writeFileSync(join(outside, "precious"), "data");
        symlinkSync(join(outside, "precious"), join(root, "vol/vfs-001.json"));
        mkdirSync(join(root, "vol/vfs-001"));
        const broken = await fixture.inspect("vfs-001");
        assert.match(broken?.broken ?? "", /symbolic link, which is not followed/);
        assert.deepEqual((await fixture.list()).volumes, [good, broken]);
        assert.ok(broken !== undefined);
        const refused = { code: "failed-precondition" };
        await assert.rejects(fixture.attach(broken, "host-a"), refused);
        await assert.rejects(fixture.driver.volumeUpdate(broken, contextOf()), refused);
        await fixture.driver.volumeRemove("vfs-001", contextOf());
      }),
  },
  {
    title: "a link planted as a data folder is not followed",
    run: (fixture) =>
      withOutside(async (outside) => {
        const root = await rootOf(fixture);
        const volume = await fixture.create(1);
        rmdirSync(join(root, "vol/vfs-001"));
        symlinkSync(outside, join(root, "vol/vfs-001"));
        assert.match((await fixture.inspect("vfs-001"))?.broken ?? "", /is a symbolic link/);
        const refused = { code: "failed-precondition" };
        await assert.rejects(fixture.attach(volume, "host-a"), refused);
        await assert.rejects(fixture.snapshot(0, volume), refused);
        await assert.rejects(fixture.copyVolume(volume, fixture.volume(2), contextOf()), refused);
        await fixture.driver.volumeRemove("vfs-001", contextOf());
        assert.equal(existsSync(join(root, "vol/vfs-001")), false);
      }),
  },
  {
    title: "a link planted where a volume is to be made is not followed",
    run: (fixture) =>
      withOutside(async (outside) => {
        const root = await rootOf(fixture);
        symlinkSync(outside, join(root, "vol/vfs-001"));
        await assert.rejects(fixture.create(1), { code: "already-exists" });
        const source = await fixture.create(0);
        const copy = fixture.copyVolume(source, fixture.volume(1), contextOf());
        await assert.rejects(copy, { code: "already-exists" });
      }),
  },
  {
    title: "links planted among the leftovers are not followed",
    run: (fixture) =>
      withOutside(async (outside) => {
        const root = await rootOf(fixture);
        const source = await fixture.create(0);
        symlinkSync(outside, join(root, "vol/.tmp-copy-vfs-001"));
        symlinkSync(outside, join(root, "vol/.tmp-gone-vfs-000"));
        await fixture.copyVolume(source, fixture.volume(1), contextOf());
        await fixture.driver.volumeRemove(source.id, contextOf());
      }),
  },
  {
    title: "a link planted as a snapshot's data is not followed",
    run: (fixture) =>
      withOutside(async (outside) => {
        const root = await rootOf(fixture);
        const snapshot = await fixture.snapshot(0, await fixture.create(0));
        rmdirSync(join(root, "snap", snapshot.id));
        symlinkSync(outside, join(root, "snap", snapshot.id));
        const wanted = fixture.volume(1);
        await assert.rejects(
          fixture.snapshots.volumeCreateFromSnapshot(snapshot, wanted, contextOf()),
          { code: "failed-precondition" },
        );
      }),
  },
  ...["vol", "snap"].map((name): Case => ({
    title: `a link planted as ${name} itself is not followed`,
    run: (fixture) =>
      withOutside(async (outside) => {
        const root = await rootOf(fixture);
        const volume = await fixture.create(0);
        const snapshot = await fixture.snapshot(0, volume);
        renameSync(join(root, name), join(root, "aside"));
        symlinkSync(outside, join(root, name));
        const refused = { code: "failed-precondition", message: /is a link, not a folder/ };
        await assert.rejects(fixture.list(), refused);
        const remove =
          name === "vol"
            ? fixture.driver.volumeRemove(volume.id, contextOf())
            : fixture.snapshots.snapshotRemove(snapshot.id, contextOf());
        await assert.rejects(remove, refused);
        await fixture.driver.close();
        await assert.rejects(fixture.place.open(contextOf()), refused);
        unlinkSync(join(root, name));
        renameSync(join(root, "aside"), join(root, name));
      }),
  })),
];

const needsRoot: Case["unless"] = () =>
  process.getuid?.() === 0 ? undefined : "only root can mount";

/** Mounts for the time of `act`. */
export async function withMount(
  args: readonly string[],
  target: string,
  act: () => Promise<void>,
): Promise<void> {
  run("mount", [...args, target]);
  try {
    await act();
  } finally {
    run("umount", [target]);
  }
}

const MOUNT_CASES: readonly Case[] = [
  {
    title: "a holder that has the folder mounted here is not cut off by force",
    unless: needsRoot,
    run: async (fixture) => {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      assert.equal(held.source.kind, "directory");
      const path = held.source.kind === "directory" ? held.source.path : "";
      const target = mkdtempSync(join(tmpdir(), "bind mount-"));
      await withMount(["--bind", path], target, async () => {
        await assert.rejects(fixture.detach(held, "host-a", true), (error: Error) => {
          assert.equal((error as Error & { code: string }).code, "failed-precondition");
          assert.ok(error.message.includes(target), error.message);
          return true;
        });
        assert.deepEqual(await fixture.inspect(held.id), held);
        // One who cooperates is only taken out of the record.
        assert.deepEqual((await fixture.detach(held, "host-a")).attachments, []);
        await fixture.attach(held, "host-a");
      });
      assert.deepEqual((await fixture.detach(held, "host-a", true)).attachments, []);
      rmdirSync(target);
    },
  },
  {
    title: "a part of the folder that is mounted here counts, too",
    unless: needsRoot,
    run: async (fixture) => {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      const path = held.source.kind === "directory" ? held.source.path : "";
      mkdirSync(join(path, "data"));
      const target = mkdtempSync(join(tmpdir(), "bind-"));
      await withMount(["--bind", join(path, "data")], target, () =>
        assert.rejects(fixture.detach(held, "host-a", true), { code: "failed-precondition" }),
      );
      rmdirSync(target);
    },
  },
  {
    title: "a volume whose holder left the record but not the mount is not removed",
    unless: needsRoot,
    run: async (fixture) => {
      const { id, source } = await fixture.create(0);
      const path = source.kind === "directory" ? source.path : "";
      writeFileSync(join(path, "precious"), "1");
      const target = mkdtempSync(join(tmpdir(), "bind-"));
      await withMount(["--bind", path], target, async () => {
        const refused = { code: "failed-precondition", message: /still mounted at .*bind-/ };
        await assert.rejects(fixture.driver.volumeRemove(id, contextOf()), refused);
        assert.equal(existsSync(join(target, "precious")), true);
      });
      await fixture.driver.volumeRemove(id, contextOf());
      assert.deepEqual((await fixture.list()).volumes, []);
      rmdirSync(target);
    },
  },
  {
    title: "another volume's mount does not keep a holder",
    unless: needsRoot,
    run: async (fixture) => {
      const held = await fixture.attach(await fixture.create(1), "host-a");
      // Its path begins like the other's.
      const other = await fixture.driver.volumeCreate(
        fixture.volume(0, { id: "vfs-0010" }),
        contextOf(),
      );
      const target = mkdtempSync(join(tmpdir(), "bind-"));
      const path = other.source.kind === "directory" ? other.source.path : "";
      await withMount(["--bind", path], target, async () => {
        assert.deepEqual((await fixture.detach(held, "host-a", true)).attachments, []);
      });
      rmdirSync(target);
    },
  },
  {
    title: "nothing is removed or copied through a mount inside a volume",
    unless: needsRoot,
    run: (fixture) =>
      withOutside(async (outside) => {
        const volume = await fixture.create(0);
        const path = volume.source.kind === "directory" ? volume.source.path : "";
        mkdirSync(join(path, "inside"));
        await withMount(["--bind", outside], join(path, "inside"), async () => {
          const refused = { code: "failed-precondition", message: /mounted at .*inside/ };
          await assert.rejects(fixture.driver.volumeRemove(volume.id, contextOf()), refused);
          await assert.rejects(fixture.snapshot(0, volume), refused);
          assert.deepEqual((await fixture.list()).volumes, [volume]);
        });
      }),
  },
  {
    title: "detach of one whose attachment was made elsewhere needs no mount",
    run: async (fixture) => {
      const volume = await fixture.create(0);
      const held = await fixture.driver.volumeAttach(volume, attachmentOf("far"), contextOf());
      assert.deepEqual((await fixture.detach(held, "far", true)).attachments, []);
    },
  },
];

/** These hold for every driver whose volumes are folders. */
export const FOLDER_CASES: readonly Case[] = [...CLIMB_CASES, ...MOUNT_CASES];

export const PLANTED_CASES: readonly Case[] = [...FOLDER_CASES, ...LINK_CASES];
