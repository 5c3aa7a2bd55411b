/** Cases of vfs alone: how it gets on with the host: changes made by hand, many volumes, events. */
import assert from "node:assert/strict";
import { mkdirSync, rmdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate, setTimeout } from "node:timers/promises";
import type { Change } from "@libstorage/server";
import { contextOf, eachOf } from "../conformance/fixture.js";
import type { Case, Fixture } from "../conformance/fixture.js";
import { rootOf } from "./vfs-records.js";

/** Longer than the driver waits for more events. */
const EVENTS_MS = 400;
/** On a busy host they may take this long. */
const SLOW_EVENTS_MS = 10_000;

/** What is reported while `act` runs; waited for until it is about as many ids as are expected. */
export async function changesDuring(
  fixture: Fixture,
  expected: number,
  act: () => Promise<void>,
): Promise<Change[]> {
  const changes: Change[] = [];
  const stop = fixture.driver.watch?.((change) => changes.push(change));
  assert.ok(stop !== undefined);
  try {
    await act();
    const latest = Date.now() + SLOW_EVENTS_MS;
    while (idsOf(changes).length < expected && Date.now() < latest) await setTimeout(20);
    await setTimeout(EVENTS_MS);
    return changes;
  } finally {
    stop();
  }
}

export function idsOf(changes: readonly Change[]): string[] {
  const ids = changes.flatMap(({ volumeIDs = [], snapshotIDs = [] }) => [
    ...volumeIDs,
    ...snapshotIDs,
  ]);
  return [...new Set(ids)].toSorted();
}

function plant(root: string, id: string): void {
  mkdirSync(join(root, "vol", id));
  writeFileSync(join(root, "vol", `${id}.json`), `{"name":"by hand","id":"${id}","type":""}`);
}

export const HOST_CASES: readonly Case[] = [
  {
    title: "a volume added, changed or removed by hand is noticed",
    async run(fixture) {
      const root = await rootOf(fixture);
      const added = await changesDuring(fixture, 1, async () => plant(root, "vfs-005"));
      assert.deepEqual(idsOf(added), ["vfs-005"]);
      const changed = await changesDuring(fixture, 1, async () =>
        utimesSync(join(root, "vol/vfs-005.json"), 1, 1),
      );
      assert.deepEqual(idsOf(changed), ["vfs-005"]);
      const removed = await changesDuring(fixture, 1, async () => {
        rmSync(join(root, "vol/vfs-005.json"));
        rmdirSync(join(root, "vol/vfs-005"));
      });
      assert.deepEqual(idsOf(removed), ["vfs-005"]);
    },
  },
  {
    title: "a snapshot added by hand, and a data folder that vanishes, are noticed",
    async run(fixture) {
      const root = await rootOf(fixture);
      const volume = await fixture.create(0);
      const changes = await changesDuring(fixture, 2, async () => {
        writeFileSync(join(root, "snap/vfs-000-004.json"), '{"id":"vfs-000-004"}');
        rmdirSync(join(root, "vol/vfs-000"));
      });
      assert.deepEqual(idsOf(changes), ["vfs-000", "vfs-000-004"]);
      assert.ok((await fixture.inspect(volume.id))?.broken !== undefined);
    },
  },
  {
    title: "own changes are not reported, even many at once",
    async run(fixture) {
      const changes = await changesDuring(fixture, 0, async () => {
        await eachOf(300, (number) => fixture.create(number));
        await fixture.attach(fixture.volume(0), "host-a");
        await fixture.snapshot(0, fixture.volume(0));
        await fixture.copyVolume(fixture.volume(0), fixture.volume(300), contextOf());
        await eachOf(100, (number) =>
          fixture.driver.volumeRemove(fixture.volume(number).id, contextOf()),
        );
      });
      assert.deepEqual(changes, []);
    },
  },
  {
    title: "a change by hand among own ones is noticed",
    async run(fixture) {
      const root = await rootOf(fixture);
      const changes = await changesDuring(fixture, 1, async () => {
        await eachOf(50, (number) => fixture.create(number));
        plant(root, "vfs-800");
        await eachOf(50, (number) => fixture.create(50 + number));
      });
      assert.deepEqual(idsOf(changes), ["vfs-800"]);
    },
  },
  {
    title: "nothing is reported after the watch was stopped",
    async run(fixture) {
      const root = await rootOf(fixture);
      const changes: Change[] = [];
      const stop = fixture.driver.watch?.((change) => changes.push(change));
      plant(root, "vfs-005");
      stop?.();
      await setTimeout(EVENTS_MS);
      assert.deepEqual(changes, []);
    },
  },
  {
    title: "a list of fifteen hundred lets others in",
    async run(fixture) {
      const root = await rootOf(fixture);
      for (let number = 0; number < 1500; number += 1) plant(root, `vfs-${1000 + number}`);
      let isDone = false;
      const list = fixture.list().finally(() => {
        isDone = true;
      });
      let turns = 0;
      while (!isDone) {
        await setImmediate();
        turns += 1;
      }
      assert.equal((await list).volumes.length, 1500);
      assert.ok(turns >= 2, `others had ${turns} turns`);
    },
  },
  {
    title: "records are for the server's user only, data folders for whoever gets there",
    async run(fixture) {
      const root = await rootOf(fixture);
      await fixture.create(0);
      assert.equal(statSync(join(root, "vol/vfs-000.json")).mode & 0o777, 0o600);
      assert.equal(statSync(join(root, "vol/vfs-000")).mode & 0o777, 0o755);
      assert.equal(statSync(join(root, "vol")).mode & 0o777, 0o700);
    },
  },
];
