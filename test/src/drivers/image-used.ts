/** Images that somebody else has open: by whatever name, they are not copied, removed or taken away. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { linkSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import type { VolumeRecord } from "@libstorage/server";
import { contextOf } from "../conformance/fixture.js";
import type { Case, Fixture } from "../conformance/fixture.js";
import { devicesMissing } from "../client/loop-device.js";
import { diskOf } from "./image-place.js";

/** Holds a file open for writing, as a virtual machine would. */
async function withWriter(
  path: string,
  act: () => Promise<void>,
  before: readonly string[] = [],
): Promise<void> {
  const script = `require("fs").openSync(process.argv[1], "r+"); console.log("open"); setInterval(() => {}, 1e6)`;
  const all = [...before, process.execPath, "-e", script, path];
  const child = spawn(all[0] ?? "", all.slice(1), { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  try {
    await act();
  } finally {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}

const BUSY = { code: "failed-precondition", message: /has its image open for writing/ };

async function assertBusy(fixture: Fixture, volume: VolumeRecord): Promise<void> {
  const copy = fixture.copyVolume(volume, fixture.volume(1), contextOf());
  await assert.rejects(copy, BUSY);
  await assert.rejects(fixture.snapshot(0, volume), BUSY);
  await assert.rejects(fixture.driver.volumeRemove(volume.id, contextOf()), BUSY);
  await assert.rejects(fixture.detach(volume, "host-a", true), BUSY);
}

/** Shows a folder at a second place, in a mount namespace that ends with its program. */
const ELSEWHERE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"';

export const USED_CASES: readonly Case[] = [
  {
    title: "what is open for writing is not copied, removed or taken away by force",
    async run(fixture) {
      const volume = await fixture.attach(await fixture.create(0), "host-a");
      await withWriter(diskOf(volume).path, async () => {
        await assertBusy(fixture, volume);
      });
      assert.deepEqual(await fixture.list(), { volumes: [volume], snapshots: [] });
    },
  },
  {
    title: "what is open for writing by a second name, or through a bind mount, is seen too",
    unless: () => (process.getuid?.() === 0 ? undefined : "only root can make a bind mount"),
    async run(fixture) {
      const volume = await fixture.attach(await fixture.create(0), "host-a");
      const { path } = diskOf(volume);
      const [second, mount] = ["second", "mount"].map((name) =>
        join(dirname(path), "..", "..", "..", name),
      );
      assert.ok(second !== undefined && mount !== undefined);
      linkSync(path, second);
      await withWriter(second, () => assertBusy(fixture, volume));
      rmSync(second);
      mkdirSync(mount);
      const seen = join(mount, path.slice(dirname(path).length + 1));
      const before = ["unshare", "--mount", "sh", "-c", ELSEWHERE, "sh", dirname(path), mount];
      await withWriter(seen, () => assertBusy(fixture, volume), before);
      assert.deepEqual(await fixture.list(), { volumes: [volume], snapshots: [] });
    },
  },
  {
    title: "a loop device on a second name of an image is seen",
    unless: () => devicesMissing([]) || undefined,
    async run(fixture) {
      const volume = await fixture.attach(await fixture.create(0), "host-a");
      const { path } = diskOf(volume);
      const second = join(dirname(path), "..", "..", "..", "second");
      linkSync(path, second);
      const made = spawnSync("losetup", ["--find", "--show", second], { encoding: "utf8" });
      assert.equal(made.status, 0, made.stderr);
      const device = made.stdout.trim();
      try {
        await assert.rejects(fixture.driver.volumeRemove(volume.id, contextOf()), {
          ...BUSY,
          message: new RegExp(`the loop device ${device} has its image open`),
        });
      } finally {
        spawnSync("losetup", ["--detach", device]);
      }
    },
  },
  {
    title: "what is exported to another host is not copied",
    async run(fixture) {
      const fields = { exporter: "nbd" };
      const volume = await fixture.attach(await fixture.create(0), "host-a", { fields });
      const busy = { code: "failed-precondition", message: /exported to host-a/ };
      const copy = fixture.copyVolume(volume, fixture.volume(1), contextOf());
      await assert.rejects(copy, busy);
      await assert.rejects(fixture.snapshot(0, volume), busy);
    },
  },
  {
    title: "a holder on this host is told the file and its format",
    async run(fixture) {
      const volume = await fixture.create(0);
      const held = await fixture.attach(volume, "host-a", { deviceName: "" });
      const { path, format } = diskOf(volume);
      assert.equal(held.attachments[0]?.deviceName, path);
      assert.deepEqual(held.attachments[0]?.fields, { path, format });
    },
  },
];
