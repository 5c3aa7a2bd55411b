/** What is told of a volume or a snapshot that something outside has damaged: that it is so, and why. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, rmSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { until } from "../docker/container-host.js";
import type { Message, TestPlugin } from "./csi-client.js";
import { made, removed, testServer, withPlugin } from "./own-plugin.js";
import { cap, unique } from "./world.js";

const pathOf = (kind: "vol" | "snap", name: string): string =>
  join(testServer().vfsRoot, kind, name);

/** What ControllerGetVolume and ListVolumes say of a volume. */
async function conditionsOf(plugin: TestPlugin, volumeId: string): Promise<Message[]> {
  const { status } = await plugin.call("ControllerGetVolume", { volumeId });
  const { entries } = await plugin.call("ListVolumes");
  const entry = entries.find((one: Message) => one.volume.volumeId === volumeId);
  return [status, entry.status].map(({ volumeCondition }) => volumeCondition);
}

/** The service sees by itself what was changed by hand. @returns what both calls say then */
async function becomes(
  plugin: TestPlugin,
  volumeId: string,
  isAbnormal: boolean,
): Promise<Message> {
  const [one, other] = await until(`${volumeId} is abnormal: ${isAbnormal}`, async () => {
    const conditions = await conditionsOf(plugin, volumeId);
    return conditions.every(({ abnormal }) => abnormal === isAbnormal) && conditions;
  });
  assert.deepEqual(one, other);
  return one;
}

/** Out of the service's sight. @returns how to bring it back */
function moveAway(path: string): () => void {
  const place = join(testServer().folder, unique("moved"));
  renameSync(path, place);
  return () => renameSync(place, path);
}

describe("the condition of a volume", () => {
  const damages: readonly {
    readonly what: string;
    readonly reason: RegExp;
    readonly damage: (id: string) => () => void;
  }[] = [
    {
      what: "whose record was damaged",
      reason: /\.json cannot be used/,
      damage(id) {
        const file = pathOf("vol", `${id}.json`);
        const text = readFileSync(file);
        writeFileSync(file, text.subarray(0, text.length / 2));
        return () => writeFileSync(file, text);
      },
    },
    {
      what: "whose data folder is gone",
      reason: /data folder .* is missing/,
      damage: (id) => moveAway(pathOf("vol", id)),
    },
    {
      what: "whose data folder is a file",
      reason: /is not a folder/,
      damage(id) {
        const folder = pathOf("vol", id);
        rmdirSync(folder);
        writeFileSync(folder, "");
        return () => {
          rmSync(folder);
          mkdirSync(folder);
        };
      },
    },
  ];

  for (const { what, reason, damage } of damages)
    it(`${what} is abnormal, with that reason, and normal when it is mended`, async () => {
      await withPlugin({}, async (plugin) => {
        const other = await made(plugin);
        const { volumeId } = await made(plugin);
        const mend = damage(volumeId);
        const { message } = await becomes(plugin, volumeId, true);
        assert.match(message, reason);
        for (const { abnormal } of await conditionsOf(plugin, other.volumeId))
          assert.equal(abnormal, false);
        const { nodeId } = await plugin.call("NodeGetInfo");
        await assert.rejects(
          plugin.call("ControllerPublishVolume", { volumeId, nodeId, volumeCapability: cap() }),
          (error: Message) => error.code === "FAILED_PRECONDITION" && reason.test(error.message),
        );
        mend();
        await becomes(plugin, volumeId, false);
        for (const id of [volumeId, other.volumeId]) await removed(plugin, id);
      });
    });
});

describe("a snapshot whose data are gone", () => {
  it("is not ready to use, in every answer, and makes no volume", async () => {
    await withPlugin({ settings: { "csi.hide": "none" } }, async (plugin) => {
      const { volumeId } = await made(plugin);
      const request = { name: unique("snap"), sourceVolumeId: volumeId };
      const { snapshotId } = (await plugin.call("CreateSnapshot", request)).snapshot;
      const mend = moveAway(pathOf("snap", snapshotId));
      const told = async (): Promise<boolean[]> => {
        const { entries } = await plugin.call("ListSnapshots", { snapshotId });
        const { snapshot } = await plugin.call("GetSnapshot", { snapshotId });
        return [entries[0].snapshot, snapshot].map(({ readyToUse }) => readyToUse);
      };
      await until("the snapshot is not ready", async () => !(await told()).includes(true));
      await assert.rejects(
        made(plugin, { volumeContentSource: { snapshot: { snapshotId } } }),
        (error: Message) => error.code === "FAILED_PRECONDITION" && /missing/.test(error.message),
      );
      mend();
      await until("the snapshot is ready", async () => !(await told()).includes(false));
      await plugin.call("DeleteSnapshot", { snapshotId });
      await removed(plugin, volumeId);
    });
  });
});
