import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { openVolumeShelf } from "./shelves.js";
import { OwnChanges } from "./watch.js";

const RECORD = '{"name":"one","size":1,"id":"vfs-000","type":""}';

describe("a list while something is on its way", () => {
  const roots: string[] = [];
  after(() => roots.forEach((root) => rmSync(root, { recursive: true })));

  function shelfWith(record: boolean, data: boolean) {
    const root = mkdtempSync(join(tmpdir(), "shelf-"));
    roots.push(root);
    const shelf = openVolumeShelf(root);
    mkdirSync(shelf.folder);
    if (record) writeFileSync(shelf.recordPath("vfs-000"), RECORD);
    if (data) mkdirSync(join(shelf.dataPath("vfs-000"), "sub"), { recursive: true });
    const own = new OwnChanges(shelf);
    const states = async (): Promise<string[]> => {
      const { entries } = await shelf.list((...half) => own.isOnItsWay(...half));
      return entries.map(({ record: { broken } }) => (broken === undefined ? "whole" : "broken"));
    };
    return { own, states };
  }

  it("what is being made is not there until it has both halves", async () => {
    for (const [record, data] of [
      [true, false],
      [false, true],
    ] as const) {
      const { own, states } = shelfWith(record, data);
      await own.run("vfs-000", true, async () => assert.deepEqual(await states(), []));
      assert.deepEqual(await states(), ["broken"], "nobody makes it any more");
    }
  });

  it("what is being removed is gone with its record", async () => {
    const { own, states } = shelfWith(false, true);
    await own.run("vfs-000", false, async () => assert.deepEqual(await states(), []));
  });

  it("what is broken stays so while someone tries to change it", async () => {
    const { own, states } = shelfWith(true, false);
    await own.run("vfs-000", false, async () => assert.deepEqual(await states(), ["broken"]));
  });

  it("what is whole is there", async () => {
    const { own, states } = shelfWith(true, true);
    await own.run("vfs-000", true, async () => assert.deepEqual(await states(), ["whole"]));
  });
});
