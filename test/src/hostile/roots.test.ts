/** What someone may have planted in the root of a vfs service, and records that cannot be read. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { StorageError } from "@libstorage/model";
import type { StorageService } from "@libstorage/server";
import { makeScratch } from "../faults/folders.js";
import { HOST_A, caller, digestOf } from "../faults/world.js";
import { create, idsOf, openAt, withStorage } from "./service.js";
import type { Places } from "./service.js";

const scratch = makeScratch("roots");
const request = { to: HOST_A, deviceName: "", force: false };
const fields = {};
let folders = 0;
after(() => scratch.remove());

interface Scene extends Places {
  /** A folder beside the root, which must never change. */
  readonly outside: string;
  readonly vol: string;
}

function scene(): Scene {
  folders += 1;
  const folder = join(scratch.path, String(folders));
  const outside = join(folder, "outside");
  mkdirSync(outside, { recursive: true });
  writeFileSync(join(outside, "precious"), "do not touch");
  const root = join(folder, "root");
  return { root, vol: join(root, "vol"), journal: join(folder, "journal"), outside };
}

/** Every change that can be asked of a volume is refused with a StorageError; removal by force may succeed. */
async function tryEverything(service: StorageService, id: string): Promise<void> {
  const attempts: Record<string, () => Promise<unknown>> = {
    attach: () => service.volumeAttach(id, request, caller()),
    detach: () => service.volumeDetach(id, HOST_A, true, caller()),
    copy: () => service.volumeCopy(id, { name: "copy", fields }, caller()),
    snapshot: () => service.volumeSnapshot(id, { name: "snap", fields }, caller()),
    expand: () => service.volumeExpand(id, 2 ** 40, caller()),
    remove: () => service.volumeRemove(id, false, caller()),
  };
  for (const [name, attempt] of Object.entries(attempts))
    await assert.rejects(attempt(), (error: unknown) => {
      assert.ok(error instanceof StorageError, `${name}: ${String(error)}`);
      assert.notEqual(error.code, "internal", `${name}: ${error.message}`);
      return true;
    });
}

const RECORDS: Readonly<Record<string, string | Buffer>> = {
  "an empty record": "",
  "half a record": '{"name": "x", "id": "vfs-0',
  "no JSON": "hello",
  "another type": "[]",
  "wrong members": '{"id": "vfs-001", "name": 5, "type": ""}',
  "another volume's id": '{"id": "vfs-000", "name": "x", "type": ""}',
  "an id that climbs": '{"id": "../../outside", "name": "x", "type": ""}',
  "a negative size": '{"id": "vfs-001", "name": "x", "type": "", "size": -1}',
  "a size of 2^63": '{"id": "vfs-001", "name": "x", "type": "", "size": 9223372036854775808}',
  "bytes that are no text": Buffer.from([0, 255, 254, 1, 2, 3]),
  "a record of 2 MiB": `{"id": "vfs-001", "name": "${"x".repeat(2 * 1024 ** 2)}", "type": ""}`,
  "deeply nested JSON": "[".repeat(100_000),
};

describe("a corrupt record", () => {
  for (const [what, content] of Object.entries(RECORDS))
    it(`is shown as broken, and the others are served: ${what}`, async () => {
      const places = scene();
      const digest = await withStorage(places, async (service) => {
        await create(service, "good");
        const id = await create(service, "bad");
        writeFileSync(join(places.vol, id, "data"), "kept");
        return digestOf(join(places.vol, id));
      });
      writeFileSync(join(places.vol, "vfs-001.json"), content);
      await withStorage(places, async (service) => {
        assert.deepEqual(idsOf(service), ["vfs-000", "vfs-001"]);
        assert.match(service.volume("vfs-001").broken ?? "", /vfs-001\.json/);
        assert.equal(service.volume("vfs-000").broken, undefined);
        await tryEverything(service, "vfs-001");
        assert.equal(digestOf(join(places.vol, "vfs-001")), digest, "its data was touched");
        await service.volumeAttach("vfs-000", request, caller());
        await service.volumeRemove("vfs-001", true, caller());
        assert.deepEqual(idsOf(service), ["vfs-000"]);
      });
    });

  it("and a missing data folder of a volume that is held can be removed by force", async () => {
    const places = scene();
    await withStorage(places, async (service) => {
      const id = await create(service, "held");
      await service.volumeAttach(id, request, caller());
    });
    rmSync(join(places.vol, "vfs-000"), { recursive: true });
    await withStorage(places, async (service) => {
      assert.match(service.volume("vfs-000").broken ?? "", /missing/);
      await service.volumeRemove("vfs-000", true, caller());
      assert.deepEqual(idsOf(service), []);
      assert.ok(!existsSync(join(places.vol, "vfs-000.json")));
    });
  });
});

/** Plants links for a volume of the id `vfs-007`. */
const LINKS: Readonly<Record<string, (places: Scene) => void>> = {
  "as data": ({ vol, outside }) => {
    writeFileSync(join(vol, "vfs-007.json"), '{"id": "vfs-007", "name": "planted", "type": ""}');
    symlinkSync(outside, join(vol, "vfs-007"));
  },
  "as a record": ({ vol, outside }) => {
    writeFileSync(join(outside, "record"), '{"id": "vfs-007", "name": "planted", "type": ""}');
    symlinkSync(join(outside, "record"), join(vol, "vfs-007.json"));
    mkdirSync(join(vol, "vfs-007"));
  },
  "as data without a record": ({ vol, outside }) => symlinkSync(outside, join(vol, "vfs-007")),
  "as data, by a way that climbs": ({ vol }) => {
    writeFileSync(join(vol, "vfs-007.json"), '{"id": "vfs-007", "name": "planted", "type": ""}');
    symlinkSync("../../outside", join(vol, "vfs-007"));
  },
  "as a record that leads nowhere": ({ vol }) =>
    symlinkSync("/nonexistent/record", join(vol, "vfs-007.json")),
};

describe("a planted link", () => {
  for (const [what, plant] of Object.entries(LINKS))
    it(`is shown as broken and never followed: ${what}`, async () => {
      const places = scene();
      await withStorage(places, async (service) => create(service, "good"));
      plant(places);
      const digest = digestOf(places.outside);
      await withStorage(places, async (service) => {
        assert.equal(service.volume("vfs-007").broken?.includes("link"), true);
        await service.inventory.refresh(AbortSignal.timeout(5000));
        await service.inventory.rereadVolume("vfs-007");
        await tryEverything(service, "vfs-007");
        assert.equal(digestOf(places.outside), digest);
        await service.volumeRemove("vfs-007", true, caller());
        assert.deepEqual(idsOf(service), ["vfs-000"]);
      });
      assert.equal(digestOf(places.outside), digest, "what the link led to was touched");
    });

  it("inside a volume's data is copied as a link, and removed as one", async () => {
    const places = scene();
    const digest = digestOf(places.outside);
    await withStorage(places, async (service) => {
      const id = await create(service, "with link");
      symlinkSync(places.outside, join(places.vol, id, "link"));
      const copy = await service.volumeCopy(id, { name: "copy", fields }, caller());
      assert.equal(digestOf(join(places.vol, copy.id)), digestOf(join(places.vol, id)));
      await service.volumeRemove(id, false, caller());
      await service.volumeRemove(copy.id, false, caller());
    });
    assert.equal(digestOf(places.outside), digest);
  });

  it("in the place of a whole shelf is refused", async () => {
    const places = scene();
    mkdirSync(places.root, { recursive: true });
    symlinkSync(places.outside, places.vol);
    const digest = digestOf(places.outside);
    await assert.rejects(openAt(places), { code: "failed-precondition", message: /vol is a link/ });
    assert.equal(digestOf(places.outside), digest);
  });

  it("in the place of the lock is not followed", async () => {
    const places = scene();
    mkdirSync(places.root, { recursive: true });
    symlinkSync(join(places.outside, "made"), join(places.root, ".libstorage.lock"));
    mkdirSync(places.journal, { recursive: true });
    symlinkSync(join(places.outside, "made"), join(places.journal, ".libstorage.lock"));
    await assert.rejects(openAt(places), (error: unknown) => error instanceof StorageError);
    assert.ok(!existsSync(join(places.outside, "made")));
  });

  it("among the temporary files is removed as a link", async () => {
    const places = scene();
    mkdirSync(places.vol, { recursive: true });
    symlinkSync(places.outside, join(places.vol, ".tmp-copy-vfs-000"));
    await withStorage(places, async (service) => {
      const id = await create(service, "x");
      await service.volumeCopy(id, { name: "copy", fields }, caller());
    });
    assert.equal(readFileSync(join(places.outside, "precious"), "utf8"), "do not touch");
    assert.ok(!existsSync(join(places.vol, ".tmp-copy-vfs-000")));
  });
});

describe("an id that climbs", () => {
  for (const id of [
    "../outside",
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/b",
    "vfs-000\0",
    "vfs-000.json",
    "%2e%2e",
    "x".repeat(4000),
  ])
    it(`is not found, and nothing happens: ${JSON.stringify(id.slice(0, 20))}`, async () => {
      const places = scene();
      await withStorage(places, async (service) => {
        await create(service, "good");
        const digest = digestOf(join(places.root, ".."));
        await tryEverything(service, id);
        await assert.rejects(service.volumeRemove(id, true, caller()), { code: "not-found" });
        await assert.rejects(service.snapshotRemove(id, caller()), { code: "not-found" });
        assert.equal(digestOf(places.vol), digestOf(places.vol));
        assert.ok(digest.length > 0);
        assert.deepEqual(idsOf(service), ["vfs-000"]);
      });
      assert.equal(readFileSync(join(places.outside, "precious"), "utf8"), "do not touch");
    });
});
