/** Journals that were damaged in every way: the server starts, says what was lost, and loses no volume. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { GIB } from "@libstorage/model";
import { DRIVERS } from "@libstorage/server";
import { makeScratch } from "../faults/folders.js";
import { HOST_A, caller, readWorld } from "../faults/world.js";
import type { WorldState } from "../faults/world.js";
import { create, idsOf, openAt, vfsService, withStorage } from "./service.js";

const scratch = makeScratch("journals");
after(() => scratch.remove());
const template = join(scratch.path, "template");
const DATA = join("journal", "current", "data.mdb");
let folders = 0;

function copyOf(folder: string): string {
  folders += 1;
  const copy = join(scratch.path, String(folders));
  cpSync(folder, copy, { recursive: true, preserveTimestamps: true });
  return copy;
}

function placesIn(folder: string): { root: string; journal: string } {
  return { root: join(folder, "root"), journal: join(folder, "journal") };
}

/** Opens what was damaged: every volume is there, as it was, and it works. @returns the warnings */
async function checkUnhurt(folder: string, state: WorldState): Promise<readonly string[]> {
  return withStorage(placesIn(folder), async (service, storage) => {
    assert.deepEqual(readWorld(folder), state, "a volume was touched");
    const ids = [...state.values()].map(({ id }) => id);
    const listed = [...service.inventory.volumes.all(), ...service.inventory.snapshots.all()];
    assert.deepEqual(listed.map(({ id }) => id).toSorted(), ids.toSorted());
    assert.deepEqual(storage.journal.openIntents(), []);
    const id = await create(service, "after the damage");
    assert.ok(!ids.includes(id), "an id was given again");
    await service.volumeRemove(id, false, caller());
    return storage.warnings;
  });
}

/** Every create is remembered with its answer. */
async function checkComplete(folder: string): Promise<void> {
  await withStorage(placesIn(folder), async (service, storage) => {
    for (let count = 0; count < 40; count += 1) {
      const outcome = storage.journal.outcome(`tester\nkey ${count}`);
      assert.equal(outcome?.phase, "end", `the answer of create ${count} is lost`);
    }
    assert.equal(service.inventory.isJournalBehind, false);
  });
}

/** A number from a seed, the same in every run. */
function random(seed: number): (below: number) => number {
  let state = seed * 2_654_435_761 + 1;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % below;
  };
}

describe("a damaged journal", () => {
  let state: WorldState;
  let size = 0;

  before(async () => {
    await withStorage(placesIn(template), async (service) => {
      for (let count = 0; count < 40; count += 1) {
        const { id } = await service.volumeCreate(
          { name: `volume ${count}`, sizeBytes: GIB, fields: {} },
          { ...caller(`key ${count}`) },
        );
        if (count % 3 === 0)
          await service.volumeAttach(id, { to: HOST_A, deviceName: "", force: false }, caller());
        if (count % 5 === 4) await service.volumeRemove(id, true, caller());
      }
      const first = service.volumeNamed("volume 0").id;
      await writeFile(join(template, "root", "vol", first, "data"), "data");
      await service.volumeSnapshot(first, { name: "snap", fields: {} }, caller());
      // The last thing that happened, whose end is the first to be lost.
      await service.volumeCreate({ name: "the last", fields: {} }, caller());
    });
    state = readWorld(template);
    size = readFileSync(join(template, DATA)).length;
  });

  it("is not there at all: nothing to say", async () => {
    const folder = copyOf(template);
    rmSync(join(folder, "journal"), { recursive: true });
    assert.deepEqual(await checkUnhurt(folder, state), []);
  });

  it("is sound: nothing to say, and it remembers", async () => {
    const folder = copyOf(template);
    assert.deepEqual(await checkUnhurt(folder, state), []);
    await withStorage(placesIn(folder), async (service) => {
      const request = { name: "volume 1", sizeBytes: GIB, fields: {} };
      assert.equal((await service.volumeCreate(request, caller("key 1"))).id, "vfs-001");
    });
  });

  it("has no lock file: it is made anew", async () => {
    const folder = copyOf(template);
    rmSync(join(folder, "journal", ".libstorage.lock"));
    rmSync(join(folder, "journal", "current", "lock.mdb"), { force: true });
    assert.deepEqual(await checkUnhurt(folder, state), []);
  });

  for (const part of [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    it(`is cut to ${part * 100} % of its length`, async () => {
      const folder = copyOf(template);
      truncateSync(join(folder, DATA), Math.floor(size * part));
      const warnings = await checkUnhurt(folder, state);
      assert.ok(warnings.length <= 1, warnings.join("\n"));
      if (warnings.length === 1) assert.match(warnings[0] ?? "", /journal/);
      // Free pages may be all that was cut off; then nothing was lost.
      else await checkComplete(folder);
    });

  for (const length of [1, 511, 4095, 4096, 8192, 12_288])
    it(`is cut to ${length} bytes`, async () => {
      const folder = copyOf(template);
      truncateSync(join(folder, DATA), length);
      assert.match((await checkUnhurt(folder, state)).join("\n"), /journal was damaged/);
    });

  it("is replaced by a text, and what is left of it is kept aside", async () => {
    const folder = copyOf(template);
    writeFileSync(join(folder, DATA), "this is no database\n".repeat(1000));
    const [warning = ""] = await checkUnhurt(folder, state);
    assert.match(warning, /the journal was damaged .* nothing of it could be read/);
    const aside = /kept as (\S+)$/.exec(warning)?.[1] ?? "";
    assert.match(readFileSync(join(aside, "data.mdb"), "utf8"), /this is no database/);
  });

  it("is replaced by an older one", async () => {
    const folder = copyOf(template);
    const older = join(scratch.path, "older");
    await withStorage(placesIn(older), async (service) => create(service, "x"));
    cpSync(join(older, DATA), join(folder, DATA));
    assert.match((await checkUnhurt(folder, state)).join("\n"), /replaced by an older one/);
  });

  it("lost its newest commit by one changed byte in its head", async () => {
    // The number of the commit stands in both heads of an LMDB file; the higher one counts.
    for (const page of [0, 4096]) {
      const folder = copyOf(template);
      const bytes = readFileSync(join(folder, DATA));
      bytes.fill(0, page + 144, page + 152);
      writeFileSync(join(folder, DATA), bytes);
      await checkUnhurt(folder, state);
    }
  });

  for (let seed = 1; seed <= 12; seed += 1)
    it(`has random bytes in its middle, seed ${seed}`, async () => {
      const folder = copyOf(template);
      const bytes = readFileSync(join(folder, DATA));
      const next = random(seed);
      for (let count = 0; count < 1 + seed * 4; count += 1) bytes[next(bytes.length)] = next(256);
      writeFileSync(join(folder, DATA), bytes);
      await checkUnhurt(folder, state);
    });
});

describe("an unfinished operation of a service that is not configured any more", () => {
  it("waits for it, is told, and is recovered when the service comes back", async () => {
    folders += 1;
    const folder = join(scratch.path, String(folders));
    const both = [
      vfsService("svc", join(folder, "root")),
      vfsService("other", join(folder, "other")),
    ];
    const places = { ...placesIn(folder), services: both };
    const intent = {
      phase: "intent",
      operation: "volumeRemove",
      service: "other",
      task: 5000,
      tx: "",
      who: "",
      via: "",
      volumeID: "vfs-000",
    } as const;
    await withStorage(places, async (_service, storage) => {
      await create(storage.service("other"), "x");
      await storage.journal.append(intent);
    });
    await withStorage(placesIn(folder), async (_service, storage) => {
      assert.match(storage.warnings.join("\n"), /service other .*not configured/);
      assert.equal(storage.journal.openIntents().length, 1);
    });
    await withStorage(places, async (_service, storage) => {
      assert.deepEqual(storage.warnings, []);
      assert.deepEqual(storage.journal.openIntents(), []);
      assert.deepEqual(idsOf(storage.service("other")), []);
    });
  });
});

describe("two servers", () => {
  const script = (folder: string, root: string, journal: string): string => `
    import { Storage, DRIVERS, SILENT } from "@libstorage/server";
    const settings = { shareable: false, uniqueNames: false };
    const config = { root: ${JSON.stringify(join(folder, root))}, quota: "off" };
    await Storage.open({
      services: [{ name: "svc", driver: DRIVERS.vfs, config, settings }],
      journalFolder: ${JSON.stringify(join(folder, journal))},
      libFolder: ${JSON.stringify(join(folder, "lib"))},
      log: SILENT,
    });
    console.log("open");
    setInterval(() => {}, 1000);
  `;
  assert.ok(DRIVERS.vfs);

  for (const [what, root, journal] of [
    ["root", "root", "journal-2"],
    ["journal", "root-2", "journal"],
  ] as const)
    it(`on one ${what}: the second refuses, and gets it once the first was killed`, async () => {
      folders += 1;
      const folder = join(scratch.path, String(folders));
      await mkdir(join(folder, "journal"), { recursive: true });
      await mkdir(join(folder, "journal-2"), { recursive: true });
      const child = spawn(
        process.execPath,
        ["--input-type=module", "--eval", script(folder, "root", "journal")],
        { cwd: import.meta.dirname, stdio: ["ignore", "pipe", "inherit"] },
      );
      try {
        await once(child.stdout, "data");
        const second = { root: join(folder, root), journal: join(folder, journal) };
        await assert.rejects(openAt(second), {
          code: "failed-precondition",
          message: new RegExp(
            `${what}(?:-2)? is in use by another libstorage server; stop that one`,
          ),
        });
        child.kill("SIGKILL");
        await once(child, "close");
        await withStorage(second, async (service) => create(service, "mine now"));
        assert.ok(existsSync(join(folder, root, "vol", "vfs-000")));
      } finally {
        child.kill("SIGKILL");
      }
    });
});
