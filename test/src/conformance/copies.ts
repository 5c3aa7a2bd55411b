/** Copies of volumes. */
import assert from "node:assert/strict";
import { contextOf, eachOf, needsCopy, OTHER_SIZE } from "./fixture.js";
import type { Case } from "./fixture.js";

const CASES: readonly Case[] = [
  {
    title: "a copy is a volume as it was asked for",
    async run(fixture) {
      const source = await fixture.create(0);
      const wanted = fixture.volume(1, { sizeBytes: OTHER_SIZE, type: "gold", iops: 2 });
      const copy = await fixture.copyVolume(source, wanted, contextOf());
      assert.equal(copy.id, wanted.id);
      assert.equal(copy.name, wanted.name);
      assert.equal(copy.sizeBytes, OTHER_SIZE);
      assert.equal(copy.type, "gold");
      assert.deepEqual(await fixture.inspect(copy.id), copy);
    },
  },
  {
    title: "copying leaves the source's record alone",
    async run(fixture) {
      const source = await fixture.attach(await fixture.create(0), "host-a");
      const copy = await fixture.copyVolume(source, fixture.volume(1), contextOf());
      assert.deepEqual(await fixture.inspect(source.id), source);
      assert.deepEqual(copy.attachments, []);
    },
  },
  {
    title: "copying once more is the same copy",
    async run(fixture) {
      const source = await fixture.create(0);
      const copy = await fixture.copyVolume(source, fixture.volume(1), contextOf());
      assert.deepEqual(await fixture.copyVolume(source, fixture.volume(1), contextOf()), copy);
    },
  },
  {
    title: "a copy to an id that is taken is refused",
    async run(fixture) {
      const source = await fixture.create(0);
      const other = await fixture.create(1);
      const copy = fixture.copyVolume(source, fixture.volume(1, { name: "x" }), contextOf());
      await assert.rejects(copy, { code: "already-exists" });
      assert.deepEqual(await fixture.inspect(other.id), other);
    },
  },
  {
    title: "a copy of an unknown volume is refused and makes none",
    async run(fixture) {
      const copy = fixture.copyVolume(fixture.volume(5), fixture.volume(1), contextOf());
      await assert.rejects(copy, { code: "not-found" });
      assert.deepEqual((await fixture.list()).volumes, []);
    },
  },
  {
    title: "a copy that is cancelled before it begins makes nothing",
    async run(fixture) {
      const source = await fixture.create(0);
      const context = contextOf({ signal: AbortSignal.abort() });
      await assert.rejects(fixture.copyVolume(source, fixture.volume(1), context), {
        code: "cancelled",
      });
      assert.deepEqual((await fixture.list()).volumes, [source]);
    },
  },
  {
    title: "a copy outlives its source",
    async run(fixture) {
      const source = await fixture.create(0);
      const copy = await fixture.copyVolume(source, fixture.volume(1), contextOf());
      await fixture.driver.volumeRemove(source.id, contextOf());
      assert.deepEqual((await fixture.list()).volumes, [copy]);
    },
  },
  {
    title: "a removed copy leaves its source",
    async run(fixture) {
      const source = await fixture.create(0);
      const copy = await fixture.copyVolume(source, fixture.volume(1), contextOf());
      await fixture.driver.volumeRemove(copy.id, contextOf());
      assert.deepEqual((await fixture.list()).volumes, [source]);
    },
  },
  {
    title: "a copy can be copied",
    async run(fixture) {
      const source = await fixture.create(0);
      const copy = await fixture.copyVolume(source, fixture.volume(1), contextOf());
      await fixture.copyVolume(copy, fixture.volume(2), contextOf());
      assert.equal((await fixture.list()).volumes.length, 3);
    },
  },
  {
    title: "four copies of one volume at once are four volumes",
    async run(fixture) {
      const source = await fixture.create(0);
      await eachOf(4, (number) =>
        fixture.copyVolume(source, fixture.volume(number + 1), contextOf()),
      );
      assert.equal((await fixture.list()).volumes.length, 5);
    },
  },
];

export const COPY_CASES: readonly Case[] = CASES.map((one) => ({ ...one, unless: needsCopy }));
