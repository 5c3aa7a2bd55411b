/** Volumes: made, listed, changed, removed. */
import assert from "node:assert/strict";
import { bytesOfGiB, MAX_SIZE_GIB } from "@libstorage/model";
import { contextOf, eachOf, needsDurability, needsExpand, OTHER_SIZE } from "./fixture.js";
import type { Case, Fixture } from "./fixture.js";

const ODD_NAMES = [
  "",
  "../../etc/passwd",
  "a/b",
  'quotes " and \\ and <&>',
  "-rf",
  "Grüße, 世界 🌍",
  "x".repeat(255),
  "__proto__",
];

const UNKNOWN_IDS = ["", ".", "..", "../x", "a/b", "\0", "nothing", "x".repeat(5000), "-", "*"];

async function names(fixture: Fixture): Promise<string[]> {
  return (await fixture.list()).volumes.map(({ name }) => name);
}

export const VOLUME_CASES: readonly Case[] = [
  {
    title: "a new service is empty",
    async run(fixture) {
      assert.deepEqual(await fixture.list(), { volumes: [], snapshots: [] });
    },
  },
  {
    title: "sizes, device rules and abilities make sense",
    async run({ driver }) {
      assert.ok(Number.isSafeInteger(driver.allocationUnitBytes) && driver.allocationUnitBytes > 0);
      assert.equal(driver.defaultSizeBytes % driver.allocationUnitBytes, 0);
      assert.ok(driver.defaultSizeBytes > 0);
      assert.ok(new RegExp(driver.nextDevice.pattern) instanceof RegExp);
      const abilities = await driver.abilities(contextOf());
      assert.ok(abilities.length > 0);
      for (const { name, detail } of abilities) assert.ok(name !== "" && detail !== "");
    },
  },
  {
    title: "free bytes are at most all bytes",
    unless: (driver) =>
      driver.capacity === undefined ? "the driver knows no capacity" : undefined,
    async run({ driver }) {
      const capacity = await driver.capacity?.(contextOf());
      assert.ok(capacity !== undefined && capacity.totalBytes > 0);
      assert.ok(capacity.freeBytes >= 0 && capacity.freeBytes <= capacity.totalBytes);
    },
  },
  {
    title: "ids of volumes tell their numbers",
    async run({ driver: { ids } }) {
      for (const number of [ids.first, 7, 99, 100, 999, 1000, 123_456]) {
        assert.equal(ids.numberOfVolume(ids.volumeID(number)), number);
        assert.match(ids.volumeID(number), /\d{3,}$/);
      }
    },
  },
  {
    title: "ids of snapshots tell their numbers",
    async run({ driver: { ids } }) {
      for (const number of [ids.first, 7, 999, 1000, 123_456])
        assert.equal(ids.numberOfSnapshot(ids.snapshotID(number, ids.volumeID(3))), number);
    },
  },
  {
    title: "ids of other makes tell no number",
    async run({ driver: { ids } }) {
      for (const id of ["", "x", "volume", "../000", `${ids.volumeID(1)}x`, "000"])
        assert.equal(ids.numberOfVolume(id), undefined, id);
      assert.equal(ids.numberOfSnapshot("backup"), undefined);
    },
  },
  {
    title: "create answers what was asked for",
    async run(fixture) {
      const asked = {
        name: "one",
        sizeBytes: OTHER_SIZE,
        type: "gold",
        availabilityZone: "az1",
        iops: 100,
        encrypted: true,
      };
      const volume = await fixture.create(0, asked);
      for (const [key, value] of Object.entries(asked))
        assert.equal(volume[key as keyof typeof asked], value, key);
      assert.deepEqual(volume.attachments, []);
      assert.equal(volume.id, fixture.volume(0).id);
      assert.equal(volume.broken, undefined);
    },
  },
  {
    title: "a created volume is listed as it was answered",
    async run(fixture) {
      const volume = await fixture.create(0, { sizeBytes: OTHER_SIZE, iops: 7 });
      assert.deepEqual((await fixture.list()).volumes, [volume]);
    },
  },
  {
    title: "a created volume is inspected as it was answered",
    async run(fixture) {
      const volume = await fixture.create(0, { type: "silver" });
      assert.deepEqual(await fixture.inspect(volume.id), volume);
    },
  },
  {
    title: "fields are kept",
    async run(fixture) {
      const fields = { owner: "me & <you>", priority: "" };
      const volume = await fixture.create(0, { fields });
      assert.deepEqual(volume.fields, fields);
      assert.deepEqual((await fixture.inspect(volume.id))?.fields, fields);
    },
  },
  {
    title: "a size of 0 stays 0",
    async run(fixture) {
      const volume = await fixture.create(0, { sizeBytes: 0 });
      assert.equal(volume.sizeBytes, 0);
      assert.equal((await fixture.inspect(volume.id))?.sizeBytes, 0);
    },
  },
  {
    title: "the largest size is kept to the byte",
    async run(fixture) {
      const sizeBytes = bytesOfGiB(MAX_SIZE_GIB);
      const volume = await fixture.create(0, { sizeBytes });
      assert.equal((await fixture.inspect(volume.id))?.sizeBytes, sizeBytes);
    },
  },
  ...ODD_NAMES.map((name): Case => ({
    title: `a volume can be named ${JSON.stringify(name.slice(0, 30))}`,
    async run(fixture) {
      const volume = await fixture.create(0, { name });
      assert.equal(volume.name, name);
      assert.deepEqual(await names(fixture), [name]);
    },
  })),
  {
    title: "two volumes may have one name",
    async run(fixture) {
      await fixture.create(0, { name: "twin" });
      await fixture.create(1, { name: "twin" });
      assert.deepEqual(await names(fixture), ["twin", "twin"]);
    },
  },
  {
    title: "creating the same once more is the same volume",
    async run(fixture) {
      const first = await fixture.create(0);
      assert.deepEqual(await fixture.create(0), first);
      assert.deepEqual((await fixture.list()).volumes, [first]);
    },
  },
  {
    title: "an id that is taken is refused and its volume left alone",
    async run(fixture) {
      const first = await fixture.create(0);
      await assert.rejects(fixture.create(0, { name: "other" }), { code: "already-exists" });
      assert.deepEqual((await fixture.list()).volumes, [first]);
    },
  },
  {
    title: "a create over a volume in use is refused",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0), "host-a");
      await assert.rejects(fixture.create(0), { code: "already-exists" });
      assert.deepEqual(await fixture.inspect(held.id), held);
    },
  },
  {
    title: "sixteen creates at once make sixteen volumes",
    async run(fixture) {
      await eachOf(16, (number) => fixture.create(number));
      const { volumes } = await fixture.list();
      assert.deepEqual(
        volumes.map(({ name }) => name),
        Array.from({ length: 16 }, (_none, number) => `volume ${number}`),
      );
    },
  },
  {
    title: "a create that is cancelled before it begins makes nothing",
    async run(fixture) {
      const context = contextOf({ signal: AbortSignal.abort() });
      const create = fixture.driver.volumeCreate(fixture.volume(0), context);
      await assert.rejects(create, { code: "cancelled" });
      assert.deepEqual((await fixture.list()).volumes, []);
    },
  },
  {
    title: "lists are in order of id",
    async run(fixture) {
      for (const number of [5, 1, 3, 0, 4, 2]) await fixture.create(number);
      const ids = (await fixture.list()).volumes.map(({ id }) => id);
      assert.deepEqual(ids, ids.toSorted());
      assert.equal(ids.length, 6);
    },
  },
  {
    title: "a list of two hundred is whole",
    async run(fixture) {
      await eachOf(200, (number) => fixture.create(number));
      const { volumes } = await fixture.list();
      assert.equal(new Set(volumes.map(({ id }) => id)).size, 200);
      assert.ok(volumes.every(({ broken }) => broken === undefined));
    },
  },
  {
    title: "lists during creates and removes show whole volumes only",
    async run(fixture) {
      const churn = eachOf(8, async (number) => {
        for (let round = 0; round < 5; round += 1) {
          await fixture.create(number);
          await fixture.driver.volumeRemove(fixture.volume(number).id, contextOf());
        }
        await fixture.create(number);
      });
      let isDone = false;
      const watched = churn.finally(() => {
        isDone = true;
      });
      while (!isDone) {
        const { volumes } = await fixture.list();
        assert.deepEqual(
          volumes.filter(({ broken }) => broken !== undefined),
          [],
        );
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      await watched;
      assert.equal((await fixture.list()).volumes.length, 8);
    },
  },
  {
    title: "an unknown id is no volume and no snapshot",
    async run(fixture) {
      await fixture.create(0);
      for (const id of [...UNKNOWN_IDS, fixture.volume(1).id]) {
        assert.equal(await fixture.inspect(id), undefined, id.slice(0, 20));
        assert.equal(await fixture.driver.snapshotInspect(id, contextOf()), undefined);
      }
    },
  },
  {
    title: "a removed volume is gone",
    async run(fixture) {
      const { id } = await fixture.create(0);
      await fixture.driver.volumeRemove(id, contextOf());
      assert.equal(await fixture.inspect(id), undefined);
      assert.deepEqual((await fixture.list()).volumes, []);
    },
  },
  {
    title: "removing once more is fine",
    async run(fixture) {
      const { id } = await fixture.create(0);
      await fixture.driver.volumeRemove(id, contextOf());
      await fixture.driver.volumeRemove(id, contextOf());
    },
  },
  {
    title: "removing what never was is fine",
    async run(fixture) {
      await fixture.driver.volumeRemove(fixture.volume(9).id, contextOf());
    },
  },
  {
    title: "removing one volume leaves the others",
    async run(fixture) {
      const kept = await fixture.create(0);
      const { id } = await fixture.create(1);
      await fixture.driver.volumeRemove(id, contextOf());
      assert.deepEqual((await fixture.list()).volumes, [kept]);
    },
  },
  {
    title: "an attached volume can be removed: the core decides whether it may",
    async run(fixture) {
      const { id } = await fixture.attach(await fixture.create(0), "host-a");
      await fixture.driver.volumeRemove(id, contextOf());
      assert.equal(await fixture.inspect(id), undefined);
    },
  },
  {
    title: "a volume made after a removal has nothing of the one before",
    async run(fixture) {
      const held = await fixture.attach(await fixture.create(0, { type: "gold" }), "host-a");
      await fixture.driver.volumeRemove(held.id, contextOf());
      const volume = await fixture.create(0);
      assert.equal(volume.type, "");
      assert.equal(volume.epoch, 0);
      assert.deepEqual(volume.attachments, []);
    },
  },
  {
    title: "sixteen removes at once remove all",
    async run(fixture) {
      await eachOf(16, (number) => fixture.create(number));
      await eachOf(16, (number) =>
        fixture.driver.volumeRemove(fixture.volume(number).id, contextOf()),
      );
      assert.deepEqual((await fixture.list()).volumes, []);
    },
  },
  {
    title: "update writes name, fields and the like",
    async run(fixture) {
      const volume = await fixture.create(0, { fields: { owner: "me" } });
      const wanted = {
        ...volume,
        name: "new",
        fields: { owner: "you", tier: "2" },
        type: "gold",
        availabilityZone: "z",
        iops: 5,
        status: "resting",
        networkName: "net",
      };
      assert.deepEqual(await fixture.driver.volumeUpdate(wanted, contextOf()), wanted);
      assert.deepEqual(await fixture.inspect(volume.id), wanted);
    },
  },
  {
    title: "updating once more changes nothing",
    async run(fixture) {
      const wanted = { ...(await fixture.create(0)), name: "new" };
      const first = await fixture.driver.volumeUpdate(wanted, contextOf());
      assert.deepEqual(await fixture.driver.volumeUpdate(wanted, contextOf()), first);
    },
  },
  {
    title: "update can take fields away",
    async run(fixture) {
      const volume = await fixture.create(0, { fields: { owner: "me" } });
      await fixture.driver.volumeUpdate({ ...volume, fields: {} }, contextOf());
      assert.deepEqual((await fixture.inspect(volume.id))?.fields, {});
    },
  },
  {
    title: "an update of an unknown volume is refused and makes none",
    async run(fixture) {
      const update = fixture.driver.volumeUpdate(fixture.volume(3), contextOf());
      await assert.rejects(update, { code: "not-found" });
      assert.deepEqual((await fixture.list()).volumes, []);
    },
  },
  {
    title: "updates of different volumes at once do not mix",
    async run(fixture) {
      await eachOf(8, (number) => fixture.create(number));
      await eachOf(8, (number) =>
        fixture.driver.volumeUpdate(fixture.volume(number, { name: `n${number}` }), contextOf()),
      );
      assert.deepEqual(
        await names(fixture),
        Array.from({ length: 8 }, (_none, number) => `n${number}`),
      );
    },
  },
  {
    title: "expand grows a volume",
    unless: needsExpand,
    async run(fixture) {
      const volume = await fixture.create(0);
      const grown = await fixture.driver.volumeExpand?.(volume, OTHER_SIZE, contextOf());
      assert.equal(grown?.sizeBytes, OTHER_SIZE);
      assert.deepEqual(await fixture.inspect(volume.id), { ...volume, sizeBytes: OTHER_SIZE });
    },
  },
  {
    title: "expanding once more changes nothing",
    unless: needsExpand,
    async run(fixture) {
      const volume = await fixture.create(0);
      const first = await fixture.driver.volumeExpand?.(volume, OTHER_SIZE, contextOf());
      assert.deepEqual(await fixture.driver.volumeExpand?.(volume, OTHER_SIZE, contextOf()), first);
    },
  },
  {
    title: "expanding an unknown volume is refused",
    unless: needsExpand,
    async run(fixture) {
      const expand = fixture.driver.volumeExpand?.(fixture.volume(3), OTHER_SIZE, contextOf());
      await assert.rejects(expand ?? Promise.resolve(), { code: "not-found" });
    },
  },
  {
    title: "volumes are the same after opening again",
    unless: needsDurability,
    async run(fixture) {
      await fixture.create(0, { fields: { a: "b", Z: "é" }, encrypted: true, iops: 3 });
      await fixture.attach(await fixture.create(1), "host-a");
      const before = await fixture.list();
      await fixture.reopen();
      assert.deepEqual(await fixture.list(), before);
    },
  },
  {
    title: "closing twice is fine",
    async run({ driver }) {
      await driver.close();
      await driver.close();
    },
  },
];
