/** Snapshots of a volume that somebody else has open, cut anywhere and refused: the present content is never lost. */
import assert from "node:assert/strict";
import { linkSync, readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { StorageError } from "@libstorage/model";
import { CountedFaults } from "@libstorage/server";
import type { FaultMode, LiveImage, VolumeRecord } from "@libstorage/server";
import { Fixture, contextOf, snapshotOf } from "../conformance/fixture.js";
import type { Case } from "../conformance/fixture.js";
import {
  checkPattern,
  diskOf,
  fromSnapshot,
  imageSize,
  qemuIO,
  writePattern,
} from "./image-place.js";

const MIB = 1024 ** 2;
const MODES: readonly FaultMode[] = ["fail", "lost-answer", "kill-before", "kill-after"];

/** Stands for the daemon of an exporter: it writes the file that it has opened, whatever that is called by now. */
class Holder implements LiveImage {
  readonly #own: string;
  readonly #volume: VolumeRecord;
  fails: StorageError | undefined;

  constructor(volume: VolumeRecord) {
    this.#volume = volume;
    const { path } = diskOf(volume);
    this.#own = join(dirname(path), "held.qcow2");
    this.#open(path);
  }

  #open(path: string): void {
    rmSync(this.#own, { force: true });
    linkSync(path, this.#own);
  }

  async layOver(path: string): Promise<void> {
    if (this.fails !== undefined) throw this.fails;
    this.#open(path);
  }

  write(pattern: number, mib: number): void {
    this.#run(`write -P ${pattern} ${mib}M 1M`);
  }

  truncate(mib: number): void {
    this.#run(`truncate ${mib}M`);
  }

  #run(...commands: readonly string[]): string {
    const source = { kind: "file", path: this.#own, format: "qcow2" } as const;
    const { ok, text } = qemuIO({ ...this.#volume, source }, ...commands);
    assert.ok(ok, text);
    return text;
  }

  async sizeBytes(): Promise<number> {
    return imageSize(this.#own);
  }

  grow(): Promise<void> {
    return Promise.reject(new Error("not asked for here"));
  }
  keep(): Promise<boolean> {
    return Promise.resolve(false);
  }
  drop(): Promise<void> {
    return Promise.resolve();
  }
}

/** A volume that is exported, and who has it open. */
async function held(fixture: Fixture): Promise<{ volume: VolumeRecord; holder: Holder }> {
  const volume = await fixture.create(0, { sizeBytes: 8 * MIB });
  writePattern(volume, 0x61, 1);
  const fields = { exporter: "some" };
  const attached = await fixture.attach(volume, "host-b", { fields });
  const holder = new Holder(attached);
  fixture.driver.useLive?.(async () => holder);
  return { volume: attached, holder };
}

const cut: Case = {
  title: "a live snapshot that is cut anywhere loses no write, and goes through again",
  async run({ harness }) {
    for (const mode of MODES)
      for (let at = 1; ; at += 1) {
        const fixture = await Fixture.open(harness);
        try {
          const { volume, holder } = await held(fixture);
          const snapshot = snapshotOf(fixture.driver, 0, volume);
          const faults = new CountedFaults(at, mode);
          const hasFailed = await fixture.snapshots
            .snapshotCreate(volume, snapshot, contextOf({ faults }))
            .then(
              () => false,
              () => true,
            );
          const where = `${mode} at ${at}: ${faults.points.at(-1)?.what}`;
          // It lives on when the server ends.
          holder.write(0x62, 2);
          await fixture.reopen();
          fixture.driver.useLive?.(async () => holder);
          const after = await fixture.inspect(volume.id);
          assert.ok(after !== undefined && after.broken === undefined, where);
          checkPattern(after, 0x61, 1);
          checkPattern(after, 0x62, 2);
          await fixture.snapshots.snapshotRemove(snapshot.id, contextOf());
          await fixture.snapshots.snapshotCreate(after, snapshot, contextOf());
          holder.write(0x63, 2);
          checkPattern(after, 0x63, 2);
          const made = await fromSnapshot(fixture, snapshot.id, 1);
          checkPattern(made, 0x61, 1);
          checkPattern(made, 0x62, 2);
          await fixture.empty();
          if (faults.passed >= at) continue;
          assert.ok(at > 1 && !hasFailed, "without a fault it succeeds");
          break;
        } finally {
          await fixture.place.close();
        }
      }
  },
};

const refused: Case = {
  title:
    "a live snapshot that is refused changes nothing, and one of which nobody knows loses nothing",
  async run(fixture) {
    const { volume, holder } = await held(fixture);
    const folder = dirname(diskOf(volume).path);
    const files = () => readdirSync(folder).map((name) => [name, statSync(join(folder, name)).ino]);
    const before = files();
    holder.fails = new StorageError("failed-precondition", "not now");
    await assert.rejects(fixture.snapshot(0, volume), { message: /not now/ });
    assert.deepEqual(files(), before);
    holder.fails = new StorageError("unavailable", "who knows");
    await assert.rejects(fixture.snapshot(0, volume), { code: "unavailable" });
    holder.write(0x62, 2);
    checkPattern(volume, 0x62, 2);
    holder.fails = undefined;
    const { id } = await fixture.snapshot(0, volume);
    holder.write(0x63, 2);
    checkPattern(volume, 0x63, 2);
    checkPattern(await fromSnapshot(fixture, id, 1), 0x62, 2);
  },
};

const grown: Case = {
  title: "a live snapshot of an image that has grown past its record loses nothing, there and here",
  async run(fixture) {
    const { volume, holder } = await held(fixture);
    holder.truncate(10);
    holder.write(0x62, 9);
    const { id, sizeBytes } = await fixture.snapshot(0, volume);
    assert.equal(sizeBytes, 10 * MIB);
    checkPattern(volume, 0x62, 9);
    assert.equal(imageSize(diskOf(volume).path), 10 * MIB);
    const request = { ...fixture.volume(1), sizeBytes };
    const snapshot = await fixture.driver.snapshotInspect(id, contextOf());
    assert.ok(snapshot !== undefined);
    const made = await fixture.snapshots.volumeCreateFromSnapshot(snapshot, request, contextOf());
    checkPattern(made, 0x62, 9);
    assert.equal((await fixture.inspect(volume.id))?.sizeBytes, 10 * MIB);
  },
};

export const LIVE_CASES: readonly Case[] = [refused, grown, cut];
