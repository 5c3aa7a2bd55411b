/** Images offered for import whose headers were changed: refused or harmless, and nothing outside is read. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { StorageError } from "@libstorage/model";
import { Fixture, contextOf } from "../conformance/fixture.js";
import { diskOf, imageHarness, imagePlace } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";

const IMAGES = 1000;
const MIB = 1024 ** 2;
const SECRET = Buffer.from("the secret of the host, which no volume may ever hold");

/** The same numbers in every run, so that a failure comes again. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Offsets of the header's fields, which are changed more often than what lies between. */
const FIELDS = [0, 4, 8, 12, 16, 20, 24, 32, 36, 40, 48, 56, 60, 64, 72, 76, 80, 88, 96, 100, 104];
const VALUES = [0, 1, 2, 4, 8, 0x10, 0xff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];

function mutated(original: Buffer, random: (below: number) => number): Buffer {
  const image = Buffer.from(original);
  for (let change = 0; change <= random(3); change += 1) {
    const at = random(3) === 0 ? random(4096) : (FIELDS[random(FIELDS.length)] ?? 0);
    if (random(2) === 0) image.writeUInt32BE(VALUES[random(VALUES.length)] ?? 0, at);
    else image[at] = random(256);
  }
  return random(20) === 0 ? image.subarray(0, random(image.length)) : image;
}

const harness = imageHarness({ format: "raw" }, true);

describe("hostile images", { skip: harness.skip }, () => {
  const scratch = makeScratch("hostile-images");
  const secret = join(scratch.path, "secret");
  let fixture: Fixture;
  let folder = "";

  before(async () => {
    writeFileSync(secret, Buffer.concat([SECRET, Buffer.alloc(MIB, 0x5e)]));
    fixture = await Fixture.open({ ...harness, place: () => imagePlace({ format: "raw" }) });
    const made = await fixture.create(0);
    folder = join(diskOf(made).path, "../../../import");
    await fixture.driver.volumeRemove(made.id, contextOf());
  });
  after(async () => {
    await fixture.driver.close();
    await fixture.place.close();
    await scratch.remove();
  });

  /** Images that each name the secret in their own way. */
  function originals(): Buffer[] {
    const make = (name: string, ...args: readonly string[]): Buffer => {
      const path = join(scratch.path, name);
      const { status, stderr } = spawnSync("qemu-img", [
        "create",
        "-q",
        "-f",
        "qcow2",
        ...args,
        path,
        "1M",
      ]);
      assert.equal(status, 0, String(stderr));
      return readFileSync(path);
    };
    return [
      make("plain"),
      make("backing", "-b", secret, "-F", "raw"),
      make("data", "-o", `data_file=${join(scratch.path, "data.raw")}`),
      make("old", "-o", "compat=0.10", "-b", secret, "-F", "raw"),
    ];
  }

  /** Offers bytes. @returns the volume, or undefined when they were refused */
  async function offer(bytes: Buffer, format: string) {
    writeFileSync(join(folder, "offered"), bytes);
    const fields = { import: "offered", importformat: format };
    try {
      return await fixture.create(1, { fields, sizeBytes: MIB });
    } catch (error) {
      assert.ok(error instanceof StorageError, String(error));
      return undefined;
    }
  }

  it(`${IMAGES} changed headers are refused or harmless`, async () => {
    const random = numbers(20_071);
    const images = originals();
    // Where the data file would be: what an image could make the host give away.
    writeFileSync(join(scratch.path, "data.raw"), readFileSync(secret));
    let taken = 0;
    for (let number = 0; number < IMAGES; number += 1) {
      const bytes = mutated(images[number % images.length] ?? Buffer.alloc(0), random);
      const volume = await offer(bytes, "qcow2");
      const { volumes } = await fixture.list();
      if (volume === undefined) {
        assert.deepEqual(volumes, [], `image ${number} was refused and left something`);
        continue;
      }
      taken += 1;
      const content = readFileSync(diskOf(volume).path);
      assert.ok(!content.includes(SECRET), `image ${number} brought the secret`);
      await fixture.driver.volumeRemove(volume.id, contextOf());
    }
    assert.ok(taken > 10 && taken < IMAGES, `${taken} were taken`);
  });

  it("a qcow2 that is offered as raw is bytes", async () => {
    const [, backed] = originals();
    const volume = await offer(backed ?? Buffer.alloc(0), "raw");
    assert.ok(volume !== undefined);
    const content = readFileSync(diskOf(volume).path);
    assert.equal(content.toString("latin1", 0, 3), "QFI");
    assert.ok(!content.includes(SECRET.subarray(0, 20)));
    await fixture.driver.volumeRemove(volume.id, contextOf());
  });

  it("what only root may read is not read through a link", async () => {
    chmodSync(secret, 0o600);
    spawnSync("ln", ["-sf", secret, join(folder, "linked")]);
    const fields = { import: "linked", importformat: "raw" };
    await assert.rejects(fixture.create(1, { fields }), {
      code: "invalid-argument",
      message: /plain file/,
    });
    for (const name of ["../secret", "/etc/passwd", "", "a/b", ".."])
      await assert.rejects(fixture.create(1, { fields: { ...fields, import: name } }), {
        code: "invalid-argument",
      });
    spawnSync("rm", [join(folder, "linked")]);
  });
});
