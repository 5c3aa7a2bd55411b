/** A full disk and a read-only one, below the volumes and below the journal. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, describe, it } from "node:test";
import { StorageError } from "@libstorage/model";
import { healthOf } from "@libstorage/server";
import type { StorageService } from "@libstorage/server";
import { makeScratch } from "../faults/folders.js";
import { checkInvariants } from "../faults/invariants.js";
import { HOST_A, caller, readWorld } from "../faults/world.js";
import type { World } from "../faults/world.js";
import { cannotMount, mountMemory, remount, unmount, unmountAll } from "./mounts.js";
import { create, idsOf, openAt, withStorage } from "./service.js";

const scratch = makeScratch("disks");
const skip = cannotMount();
const request = { to: HOST_A, deviceName: "", force: false };
let folders = 0;

after(async () => {
  unmountAll();
  await scratch.remove();
});

function nextFolder(): string {
  folders += 1;
  return join(scratch.path, String(folders));
}

function worldIn(folder: string): World {
  const places = { root: join(folder, "root"), journal: join(folder, "journal") };
  return { folder, open: () => openAt(places), read: async () => readWorld(folder) };
}

/** Takes all that is free, to the last block. */
function fill(folder: string): () => void {
  const ballast = join(folder, "ballast");
  for (const size of [65_536, 4096, 1])
    try {
      for (;;) writeFileSync(ballast, Buffer.alloc(size), { flag: "a" });
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
    }
  return () => rmSync(ballast);
}

function rejectsAs(running: Promise<unknown>, code: string, text: RegExp): Promise<void> {
  return assert.rejects(running, (error: unknown) => {
    assert.ok(error instanceof StorageError, `${String(error)} is not a StorageError`);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, text);
    return true;
  });
}

describe("a full disk below the volumes", { skip }, () => {
  afterEach(unmountAll);

  it("refuses what needs space, changes nothing, and works again once there is some", async () => {
    const folder = nextFolder();
    mountMemory(join(folder, "root"), "1m");
    await withStorage(
      { root: join(folder, "root"), journal: join(folder, "journal") },
      async (service, storage) => {
        const id = await create(service, "first");
        await writeFile(join(folder, "root", "vol", id, "data"), Buffer.alloc(300_000, "x"));
        const before = readWorld(folder);
        const free = fill(join(folder, "root"));
        const full = /the file system is full/;
        await rejectsAs(create(service, "second"), "resource-exhausted", full);
        await rejectsAs(
          service.volumeCopy(id, { name: "copy", fields: {} }, caller()),
          "resource-exhausted",
          full,
        );
        await rejectsAs(
          service.volumeSnapshot(id, { name: "snap", fields: {} }, caller()),
          "resource-exhausted",
          full,
        );
        await rejectsAs(service.volumeAttach(id, request, caller()), "resource-exhausted", full);
        assert.deepEqual(await checkInvariants(worldIn(folder), storage, before), before);
        free();
        await create(service, "second");
        await service.volumeAttach(id, request, caller());
        await service.volumeCopy(id, { name: "copy", fields: {} }, caller());
        await checkInvariants(worldIn(folder), storage, before);
      },
    );
  });

  it("stops a copy that does not fit, and leaves nothing of it", async () => {
    const folder = nextFolder();
    mountMemory(join(folder, "root"), "1m");
    await withStorage(
      { root: join(folder, "root"), journal: join(folder, "journal") },
      async (service, storage) => {
        const id = await create(service, "first");
        await writeFile(join(folder, "root", "vol", id, "data"), Buffer.alloc(600_000, "x"));
        const before = readWorld(folder);
        const copying = service.volumeCopy(id, { name: "copy", fields: {} }, caller());
        await rejectsAs(copying, "resource-exhausted", /the file system is full/);
        assert.deepEqual(await checkInvariants(worldIn(folder), storage, before), before);
      },
    );
  });

  it("still lets volumes be removed, which is how space is made", async () => {
    const folder = nextFolder();
    mountMemory(join(folder, "root"), "1m");
    await withStorage(
      { root: join(folder, "root"), journal: join(folder, "journal") },
      async (service, storage) => {
        const id = await create(service, "first");
        const before = readWorld(folder);
        fill(join(folder, "root"));
        await service.volumeRemove(id, false, caller());
        assert.deepEqual([...(await checkInvariants(worldIn(folder), storage, before)).keys()], []);
      },
    );
  });
});

describe("a full disk below the journal", { skip }, () => {
  afterEach(unmountAll);

  /** Fills the journal's disk and works until the journal has used what it had left itself. */
  async function exhaust(service: StorageService): Promise<StorageError> {
    for (let count = 0; count < 2000; count += 1)
      try {
        await create(service, `more ${count}`);
      } catch (error) {
        assert.ok(error instanceof StorageError, String(error));
        return error;
      }
    assert.fail("the journal's disk was never full");
  }

  it("refuses writes with its reason, answers reads, and works again once there is space", async () => {
    const folder = nextFolder();
    mountMemory(join(folder, "journal"), "1m");
    const places = { root: join(folder, "root"), journal: join(folder, "journal") };
    const storage = await openAt(places);
    try {
      const service = storage.service("svc");
      const id = await create(service, "first");
      const free = fill(join(folder, "journal"));
      const error = await exhaust(service);
      assert.equal(error.code, "unavailable");
      assert.match(error.message, /the journal cannot be written/);
      const before = readWorld(folder);
      assert.ok(before.has("volume first"));
      await rejectsAs(create(service, "no"), "unavailable", /journal/);
      await rejectsAs(service.volumeAttach(id, request, caller()), "unavailable", /journal/);
      await rejectsAs(service.volumeRemove(id, false, caller()), "unavailable", /journal/);
      assert.deepEqual(readWorld(folder), before, "a refused request changed something");
      assert.equal(service.volume(id).name, "first");
      const { status, warnings } = healthOf(storage, true, []);
      assert.equal(status, "warning");
      assert.match(warnings.join(), /last change was refused: the journal cannot be written/);
      free();
      await storage.operations.stuck.finishAll();
      await service.volumeAttach(id, request, caller());
      await create(service, "second");
      assert.deepEqual(healthOf(storage, true, []).warnings, []);
      await checkInvariants(worldIn(folder), storage, before);
    } finally {
      await storage.close();
    }
    await withStorage(places, async (service, reopened) => {
      assert.deepEqual(reopened.warnings, []);
      assert.equal(service.volumeNamed("first").attachments.length, 1);
      assert.equal(service.volumeNamed("second").name, "second");
    });
  });

  it("can be stopped and started while the disk is full", async () => {
    const folder = nextFolder();
    mountMemory(join(folder, "journal"), "1m");
    const places = { root: join(folder, "root"), journal: join(folder, "journal") };
    let ids: string[] = [];
    await withStorage(places, async (service) => {
      await create(service, "first");
      fill(join(folder, "journal"));
      await exhaust(service);
      ids = idsOf(service);
    });
    await withStorage(places, async (service) => assert.deepEqual(idsOf(service), ids));
    rmSync(join(folder, "journal", "ballast"));
    await withStorage(places, async (service, storage) => {
      await create(service, "second");
      await checkInvariants(worldIn(folder), storage, new Map());
    });
  });
});

describe("a read-only root", { skip }, () => {
  afterEach(() => {
    unmountAll();
  });

  it("refuses changes with its reason while it lasts, and serves reads", async () => {
    const folder = nextFolder();
    const root = join(folder, "root");
    mountMemory(root, "4m");
    await withStorage({ root, journal: join(folder, "journal") }, async (service, storage) => {
      const id = await create(service, "first");
      const before = readWorld(folder);
      remount(root, "ro");
      const why = /read-only/;
      await rejectsAs(create(service, "no"), "failed-precondition", why);
      await rejectsAs(service.volumeAttach(id, request, caller()), "failed-precondition", why);
      await rejectsAs(service.volumeRemove(id, false, caller()), "failed-precondition", why);
      await rejectsAs(
        service.volumeCopy(id, { name: "no", fields: {} }, caller()),
        "failed-precondition",
        why,
      );
      await service.inventory.refresh(AbortSignal.timeout(5000));
      assert.deepEqual(idsOf(service), [id]);
      remount(root, "rw");
      assert.deepEqual(await checkInvariants(worldIn(folder), storage, before), before);
      await service.volumeAttach(id, request, caller());
    });
  });

  it("can be started on, and lists what is there", async () => {
    const folder = nextFolder();
    const root = join(folder, "root");
    const places = { root, journal: join(folder, "journal") };
    mountMemory(root, "4m");
    const id = await withStorage(places, async (service) => create(service, "first"));
    remount(root, "ro");
    await withStorage(places, async (service) => {
      assert.deepEqual(idsOf(service), [id]);
      await rejectsAs(create(service, "no"), "failed-precondition", /read-only/);
    });
  });

  it("that is empty is refused at the start, with its reason", async () => {
    const folder = nextFolder();
    const root = join(folder, "root");
    mountMemory(root, "1m");
    remount(root, "ro");
    await rejectsAs(
      openAt({ root, journal: join(folder, "journal") }),
      "failed-precondition",
      /service svc: .*read-only/,
    );
    unmount(root);
    await mkdir(root, { recursive: true });
    await withStorage({ root, journal: join(folder, "journal") }, async (service) =>
      create(service, "x"),
    );
    assert.ok(existsSync(join(root, "vol")));
    assert.equal(readdirSync(join(root, "vol")).length, 2);
  });
});
