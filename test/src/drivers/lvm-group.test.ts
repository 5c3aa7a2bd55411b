/** lvm-iscsi on a group in memory: which groups are refused, what a listing costs, and the sizes of small volumes. */
import assert from "node:assert/strict";
import { mkdtempSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { DRIVERS } from "@libstorage/server";
import type { DriverModule, Storage } from "@libstorage/server";
import * as v from "valibot";
import { contextOf, snapshotOf, volumeOf } from "../conformance/fixture.js";
import { SERVICE, caller, openWorld } from "../faults/world.js";
import { openOver } from "./lvm-fake.js";
import { VolumeGroupModel } from "./lvm-model.js";

const MIB = 1024 ** 2;
const EXTENT = 4 * MIB;
const context = contextOf();
const isRoot = process.getuid?.() === 0;
const skip = isRoot ? false : "only root may lock a part of a volume group, in /run/lock";
const GROUP = `group${process.pid}`;

function checked(config: object = {}): object {
  const keys = { volumeGroup: GROUP, defaultSize: "8M", watchSeconds: 3600, ...config };
  return v.parse(DRIVERS["lvm-iscsi"].config, keys) as object;
}

async function removeLocks(): Promise<void> {
  await rm(`/run/lock/libstorage/lvm-iscsi/${GROUP}.lvm-`, { recursive: true, force: true });
}

describe("lvm-iscsi, groups that it does not use", { skip }, () => {
  after(removeLocks);

  async function refusedAt(change: (model: VolumeGroupModel) => void, message: RegExp) {
    const model = new VolumeGroupModel(GROUP, "pool");
    change(model);
    for (const keys of [{}, { thinPool: "pool" }])
      await assert.rejects(openOver(model, checked(keys), context), {
        code: "failed-precondition",
        message,
      });
    const changes = model.lines.filter((line) => !/^(?:vgs|lvs|lvm version)/.test(line));
    assert.deepEqual(changes, [], "nothing is changed");
    // The model is none that refuses everything.
    const sound = new VolumeGroupModel(GROUP, "pool");
    await (await openOver(sound, checked(), context)).close();
  }

  it("one that is partial: it says how many disks are missing, and what to do", () =>
    refusedAt(
      (model) => (model.missingDisks = 2),
      /cannot use the volume group group\d+: 2 of its disks are missing;.*vgreduce --removemissing/,
    ));

  for (const lockType of ["sanlock", "dlm"])
    it(`one that hosts share by locks: ${lockType}`, () =>
      refusedAt(
        (model) => (model.lockType = lockType),
        new RegExp(`shared between hosts by ${lockType} locks.*a group of its own`),
      ));

  it("a lock type of none is no lock", async () => {
    const model = new VolumeGroupModel(GROUP, "pool");
    model.lockType = "none";
    await (await openOver(model, checked(), context)).close();
  });

  it("one that is exported", () =>
    refusedAt((model) => (model.isExported = true), /it is exported; import it first: vgimport/));

  it("one whose lock another host has, which LVM itself refuses", () =>
    refusedAt((model) => {
      model.refuse = /^vgs /;
      model.refusal = `Cannot access VG ${GROUP} with lock type sanlock that requires lvmlockd.`;
    }, /cannot use the volume group group\d+: the volume group group\d+ is locked by another host/));

  it("a lock that another host takes later fails that request alone", async () => {
    const model = new VolumeGroupModel(GROUP, "pool");
    const driver = await openOver(model, checked({ thinPool: "pool" }), context);
    try {
      model.refuse = /^lvcreate /;
      model.refusal = `VG ${GROUP} lock failed: held by other host.`;
      await assert.rejects(driver.volumeCreate(volumeOf(driver, 0), context), {
        code: "failed-precondition",
        message: /is locked by another host/,
      });
      assert.deepEqual(model.names(), ["pool"]);
      model.refuse = undefined;
      await driver.volumeCreate(volumeOf(driver, 0), context);
    } finally {
      await driver.close();
    }
  });
});

describe("lvm-iscsi, the commands of a listing", { skip }, () => {
  after(removeLocks);

  for (const thinPool of ["pool", undefined])
    it(`is one report, however much there is: ${thinPool === undefined ? "thick" : "thin"}`, async () => {
      const model = new VolumeGroupModel(GROUP, "pool");
      const config = checked(thinPool === undefined ? {} : { thinPool });
      const first = await openOver(model, config, context);
      const COUNT = 60;
      for (let number = 0; number < COUNT; number += 1) {
        const volume = await first.volumeCreate(volumeOf(first, number), context);
        await first.snapshots?.snapshotCreate(volume, snapshotOf(first, number, volume), context);
      }
      await first.close();
      const driver = await openOver(model, config, context);
      try {
        for (const what of ["after the start", "again"]) {
          model.lines.length = 0;
          const { volumes, snapshots } = await driver.list(context);
          assert.deepEqual([volumes.length, snapshots.length], [COUNT, COUNT]);
          assert.deepEqual(
            model.lines.map((line) => line.split(" ")[0]),
            ["lvs"],
            `${what}: ${model.lines.join("\n")}`,
          );
        }
      } finally {
        await driver.close();
      }
    });
});

describe("lvm-iscsi, sizes below an extent", { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), "libstorage-lvm-group-"));
  after(async () => {
    await removeLocks();
    await rm(folder, { recursive: true, force: true });
  });

  async function withService(name: string, act: (storage: Storage) => Promise<void>, keys = {}) {
    const model = new VolumeGroupModel(GROUP, "pool");
    const config = checked(keys);
    const module: DriverModule = {
      ...DRIVERS["lvm-iscsi"],
      open: (_config, opening) => openOver(model, config, opening),
    };
    const place = join(folder, name);
    await mkdir(join(place, "journal"), { recursive: true });
    const storage = await openWorld(place, undefined, module, config);
    try {
      await act(storage);
    } finally {
      await storage.close();
    }
    return model;
  }

  for (const [kind, keys] of [
    ["thin", { thinPool: "pool" }],
    ["thick", {}],
  ] as const)
    it(`become one extent, and the answer says so: ${kind}`, async () => {
      const wanted: readonly [number, number][] = [
        [1, EXTENT],
        [512, EXTENT],
        [EXTENT - 1, EXTENT],
        [EXTENT, EXTENT],
        [EXTENT + 1, 2 * EXTENT],
      ];
      const model = await withService(
        kind,
        async (storage) => {
          const service = storage.service(SERVICE);
          for (const [sizeBytes, real] of wanted) {
            const answer = await service.volumeCreate(
              { name: "v", sizeBytes, fields: {} },
              caller(),
            );
            assert.equal(answer.sizeBytes, real, `${sizeBytes} asked for`);
            assert.equal(service.volume(answer.id).sizeBytes, real);
          }
          const { id } = service.inventory.volumes.all()[0] ?? { id: "" };
          const grown = await service.volumeExpand(id, EXTENT + 1, caller());
          assert.equal(grown.sizeBytes, 2 * EXTENT);
        },
        keys,
      );
      // LVM is asked for what was answered, so that neither of them rounds to something else.
      const asked = model.lines.flatMap((line) => /^lvcreate .*-[VL] (\d+)b/.exec(line)?.[1] ?? []);
      assert.deepEqual(
        asked.map(Number),
        wanted.map(([, real]) => real),
      );
    });
});
