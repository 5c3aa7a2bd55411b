/** Images offered for import whose headers were changed: refused or harmless, and nothing outside is read. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
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

/** Every so many images are offered by upload, too. */
const UPLOADS = 5;

/** A read after it was written changes the time of its last access, if its file system notes that at all. */
function setUnread(path: string): void {
  utimesSync(path, 1_000_000, statSync(path).mtimeMs / 1000);
}

function isUnread(path: string): boolean {
  return statSync(path).atimeMs === 1_000_000_000;
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

  /** Offers bytes as an upload. @returns the volume, or undefined when they were refused */
  async function upload(bytes: Buffer) {
    const { content } = fixture.driver;
    assert.ok(content !== undefined);
    const wanted = fixture.volume(1, { sizeBytes: MIB });
    const sent = { format: "qcow2", bytes: Readable.from([bytes]), isSizeGiven: false } as const;
    try {
      return await content.volumeCreateFrom(wanted, sent, contextOf());
    } catch (error) {
      assert.ok(error instanceof StorageError, String(error));
      return undefined;
    }
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

  /** @returns whether it was taken */
  async function isTaken(made: ReturnType<typeof offer>, number: number): Promise<boolean> {
    const volume = await made;
    if (volume === undefined) {
      const { volumes } = await fixture.list();
      assert.deepEqual(volumes, [], `image ${number} was refused and left something`);
      return false;
    }
    const content = readFileSync(diskOf(volume).path);
    assert.ok(!content.includes(SECRET), `image ${number} brought the secret`);
    await fixture.driver.volumeRemove(volume.id, contextOf());
    return true;
  }

  it("a read of what lies outside would be seen: by one who writes nothing of it, too", async (t) => {
    setUnread(secret);
    assert.ok(isUnread(secret));
    readFileSync(secret);
    if (isUnread(secret)) {
      t.skip("the file system does not note reads (noatime)");
      return;
    }
    // As a tool that opens what an image names, and then does no more.
    const [, backed] = originals();
    const path = join(scratch.path, "backed.qcow2");
    writeFileSync(path, backed ?? "");
    setUnread(secret);
    const { status } = spawnSync("qemu-io", ["-r", "-f", "qcow2", "-c", "read 0 512", path]);
    assert.equal(status, 0);
    assert.ok(!isUnread(secret));
  });

  it(`${IMAGES} changed headers are refused or harmless, and nothing outside is read`, async () => {
    const random = numbers(20_071);
    const images = originals();
    // Where the data file would be: what an image could make the host give away.
    const data = join(scratch.path, "data.raw");
    writeFileSync(data, readFileSync(secret));
    for (const path of [secret, data]) setUnread(path);
    let [taken, uploaded] = [0, 0];
    for (let number = 0; number < IMAGES; number += 1) {
      const bytes = mutated(images[number % images.length] ?? Buffer.alloc(0), random);
      if (await isTaken(offer(bytes, "qcow2"), number)) taken += 1;
      if (number % UPLOADS === 0 && (await isTaken(upload(bytes), number))) uploaded += 1;
      for (const path of [secret, data])
        assert.ok(isUnread(path), `image ${number} made something read ${path}`);
    }
    assert.ok(taken > 10 && taken < IMAGES, `${taken} were taken`);
    assert.ok(uploaded > 2 && uploaded < IMAGES / UPLOADS, `${uploaded} uploads were taken`);
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
