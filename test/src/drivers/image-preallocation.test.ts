/** What is to be taken at once is taken, whatever way an image comes to be written. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, createReadStream, lstatSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import type { VolumeRecord } from "@libstorage/server";
import { Fixture, contextOf } from "../conformance/fixture.js";
import { checkPattern, diskOf, imageHarness, qemuIO, writePattern } from "./image-place.js";
import type { Way } from "./image-place.js";

const MIB = 1024 ** 2;
const SIZE = 8 * MIB;
/** Of the pattern, and of the tables of a qcow2 or the header of LUKS. */
const FEW = 4 * MIB;

type Preallocation = "off" | NonNullable<Way["preallocation"]>;

/** Bytes of a file that were written, and are no mere room. */
function writtenBytes(path: string): number {
  const args = ["map", "-U", "--output=json", "-f", "raw", path];
  const { stdout } = spawnSync("qemu-img", args, { encoding: "utf8" });
  const extents = JSON.parse(stdout) as { length: number; data: boolean }[];
  return extents.reduce((sum, { length, data }) => sum + (data ? length : 0), 0);
}

/** Checks what a volume's file takes. @param bytes of the disk */
function checkTaken(volume: VolumeRecord, wanted: Preallocation, way: string, bytes = SIZE): void {
  const { path, format } = diskOf(volume);
  const { blocks, size } = lstatSync(path);
  const about = `${way}, ${format}, ${wanted}`;
  const takes = blocks * 512;
  if (wanted === "falloc" || wanted === "full") assert.ok(takes >= bytes, `${about}: ${takes}`);
  else assert.ok(takes < FEW, `${about}: ${takes}`);
  if (wanted === "full") assert.ok(writtenBytes(path) >= bytes, about);
  if (format === "qcow2") assert.equal(size >= bytes, wanted !== "off", `${about}: ${size}`);
}

class Volumes {
  readonly fixture: Fixture;
  readonly #wanted: Preallocation;
  readonly #fields: Readonly<Record<string, string>>;
  #number = 0;

  /** @param isByKey whether the service says it, and not the volume */
  constructor(fixture: Fixture, wanted: Preallocation, isByKey: boolean) {
    this.fixture = fixture;
    this.#wanted = wanted;
    this.#fields = isByKey ? {} : { preallocation: wanted };
  }

  wanted(format: string): Preallocation {
    return this.#wanted === "metadata" && format !== "qcow2" ? "off" : this.#wanted;
  }

  check(volume: VolumeRecord, way: string, bytes = SIZE): void {
    checkTaken(volume, this.wanted(diskOf(volume).format), way, bytes);
    checkPattern(volume, 7, 2);
    checkPattern(volume, 0, 5);
  }

  asked(format: string, more: Readonly<Record<string, string>> = {}, sizeBytes = SIZE) {
    this.#number += 1;
    const fields = { format, ...this.#fields, ...more };
    return this.fixture.volume(this.#number, { sizeBytes, fields });
  }

  async create(format: string, more: Readonly<Record<string, string>> = {}): Promise<VolumeRecord> {
    return this.fixture.driver.volumeCreate(this.asked(format, more), contextOf());
  }
}

async function withVolumes(
  way: Way,
  wanted: Preallocation,
  isByKey: boolean,
  act: (volumes: Volumes) => Promise<void>,
): Promise<void> {
  const key = isByKey && wanted !== "off" ? { preallocation: wanted } : {};
  const fixture = await Fixture.open(imageHarness({ ...way, ...key }, true));
  try {
    await act(new Volumes(fixture, wanted, isByKey));
    await fixture.empty();
  } finally {
    await fixture.driver.close();
    await fixture.place.close();
  }
}

/** Makes volumes with the content of one that has a pattern at 2 MiB. */
async function checkWays(volumes: Volumes, format: "raw" | "qcow2"): Promise<void> {
  const { fixture } = volumes;
  const { driver } = fixture;
  const source = await volumes.create(format);
  writePattern(source, 7, 2);
  volumes.check(source, "create");
  const { path } = diskOf(source);
  copyFileSync(path, join(path, "../../../import/some"));
  volumes.check(await volumes.create(format, { import: "some", importformat: format }), "import");
  const content = { format, bytes: createReadStream(path), isSizeGiven: true };
  const taken = await driver.content?.volumeCreateFrom(volumes.asked(format), content, contextOf());
  assert.ok(taken !== undefined);
  volumes.check(taken, "upload");
  const copy = await fixture.copyVolume(source, volumes.asked(format), contextOf());
  volumes.check(copy, "copy");
  const larger = volumes.asked(format, {}, 2 * SIZE);
  volumes.check(await fixture.copyVolume(source, larger, contextOf()), "larger copy", 2 * SIZE);
  for (const to of ["qcow2", "raw"]) {
    const now = (await fixture.inspect(copy.id)) ?? copy;
    const converted = await driver.images?.convert(now, to, contextOf());
    assert.ok(converted !== undefined);
    volumes.check(converted, `convert of ${format}`);
  }
  const snapshot = await fixture.snapshot(0, source);
  assert.ok(qemuIO(source, "write -P 8 5M 1M").ok);
  const made = volumes.asked(format);
  volumes.check(
    await fixture.snapshots.volumeCreateFromSnapshot(snapshot, made, contextOf()),
    "from a snapshot",
  );
  volumes.check(await fixture.reverts.volumeRevert(source, snapshot, contextOf()), "revert");
}

describe("preallocation of images", { skip: imageHarness({ format: "raw" }, true).skip }, () => {
  const all: readonly Preallocation[] = ["off", "metadata", "falloc", "full"];
  for (const format of ["raw", "qcow2"] as const)
    for (const wanted of all)
      for (const isByKey of wanted === "metadata" || wanted === "falloc" ? [false, true] : [false])
        it(`${wanted} for ${format}, said by the ${isByKey ? "service" : "volume"}`, async () => {
          await withVolumes({ format }, wanted, isByKey, (volumes) => checkWays(volumes, format));
        });

  for (const snapshots of ["overlays", "inner"] as const)
    it(`a copy is written whole where copies and snapshots share (${snapshots})`, async () => {
      const way = { format: "qcow2", copies: "overlays", snapshots } as const;
      await withVolumes(way, "falloc", true, (volumes) => checkWays(volumes, "qcow2"));
    });

  it("of encrypted images too", async () => {
    await withVolumes({ format: "raw" }, "falloc", false, async (volumes) => {
      const { fixture } = volumes;
      const check = (one: VolumeRecord, format: string): void => {
        assert.equal(diskOf(one).format, format);
        assert.ok(lstatSync(diskOf(one).path).blocks * 512 >= SIZE, format);
      };
      const asked = () => ({ ...volumes.asked("qcow2"), encrypted: true });
      const source = await fixture.driver.volumeCreate(asked(), contextOf());
      check(source, "qcow2+luks");
      const copy = await fixture.copyVolume(source, asked(), contextOf());
      check(copy, "qcow2+luks");
      const raw = await fixture.driver.images?.convert(copy, "raw", contextOf());
      assert.ok(raw !== undefined);
      check(raw, "luks");
    });
  });

  it("an ISO file stays as it is: the service's key leaves it, and the option is refused", async () => {
    await withVolumes({ format: "raw" }, "falloc", true, async (volumes) => {
      const folder = join(diskOf(await volumes.create("raw")).path, "../../../import");
      const iso = Buffer.alloc(SIZE);
      iso.write("\x01CD001", 32_768, "latin1");
      writeFileSync(join(folder, "x.iso"), iso);
      const fields = { import: "x.iso", importformat: "iso" };
      const kept = await volumes.create("raw", fields);
      assert.ok(lstatSync(diskOf(kept).path).blocks * 512 < MIB);
      const copy = await volumes.fixture.copyVolume(kept, volumes.asked("raw"), contextOf());
      assert.ok(lstatSync(diskOf(copy).path).blocks * 512 < MIB);
      await assert.rejects(volumes.create("raw", { ...fields, preallocation: "full" }), {
        code: "invalid-argument",
        message: /ISO file is kept as it is, so not preallocated/,
      });
    });
  });
});
