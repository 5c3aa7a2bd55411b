/** Clones of a service that can change the type and speed of a volume that is there. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import * as v from "valibot";
import { MUTABLE, StorageError } from "@libstorage/model";
import type { Volume, VolumeService } from "@libstorage/model";
import { defineDriver, DRIVERS } from "@libstorage/server";
import { startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { openTestPlugin } from "./csi-client.js";
import type { Message, TestPlugin } from "./csi-client.js";
import { cap, unique } from "./world.js";

const SERVICE = "tiers";

/** The vfs driver, whose records may say anything of a volume. */
const tiers = defineDriver({
  name: SERVICE,
  config: v.strictObject({ root: v.string() }),
  async open({ root }, context) {
    const driver = await DRIVERS.vfs.open({ root, quota: "off" }, context);
    return new Proxy(driver, {
      get(target, name) {
        if (name === "mutable") return MUTABLE;
        const member: unknown = Reflect.get(target, name);
        return typeof member === "function" ? (member.bind(target) as unknown) : member;
      },
    });
  },
});

describe("clones whose class is not that of their source", () => {
  let folder: string;
  let server: TestServer;
  let plugin: TestPlugin;
  /** The next change of a volume does not come to the server. */
  let isCut = false;

  const cutting = (service: VolumeService): VolumeService => ({
    ...service,
    async volumeUpdate(...args) {
      if (!isCut) return service.volumeUpdate(...args);
      isCut = false;
      throw new StorageError("unavailable", "the connection is cut here by the test");
    },
  });
  const make = async (parameters: object, more: object = {}): Promise<Message> => {
    const request = { name: unique("pvc"), volumeCapabilities: [cap()], parameters, ...more };
    return (await plugin.call("CreateVolume", request)).volume;
  };
  const now = (volumeID: string): Promise<Volume> =>
    server.app.service.volumeInspect({ service: SERVICE, volumeID }, undefined, {});

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "csi-clones-"));
    server = await startServer({
      drivers: { [SERVICE]: tiers },
      config: `      ${SERVICE}:\n        driver: ${SERVICE}\n        ${SERVICE}:\n          root: ${folder}`,
    });
    plugin = await openTestPlugin({
      host: server.host,
      folder: join(server.folder, "host"),
      service: SERVICE,
      wrapService: cutting,
    });
  });
  after(async () => {
    await plugin.stop();
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  afterEach(async () => {
    const { entries } = await plugin.call("ListVolumes");
    for (const { volume } of entries)
      await plugin.call("DeleteVolume", { volumeId: volume.volumeId });
  });

  it("get what the service can change, and are told what it cannot", async () => {
    const source = await make({ type: "slow", iops: "100" });
    const volumeContentSource = { volume: { volumeId: source.volumeId } };
    const clone = await make({ type: "fast", iops: "200" }, { volumeContentSource });
    const { type, iops } = await now(clone.volumeId);
    assert.deepEqual({ type, iops }, { type: "fast", iops: 200 });
    assert.equal((await now(source.volumeId)).type, "slow");
    await assert.rejects(
      make({ type: "fast", encrypted: "true" }, { volumeContentSource }),
      (error: { code: string; message: string }) =>
        error.code === "INVALID_ARGUMENT" && /has encrypted false and not true/.test(error.message),
    );
    const like = await make({ type: "slow", encrypted: "false" }, { volumeContentSource });
    assert.equal((await now(like.volumeId)).iops, 100);
    assert.equal((await plugin.call("ListVolumes")).entries.length, 3, "nothing else was made");
  });

  it("get it by the next call, when the first one is cut short, and then no more", async () => {
    const source = await make({ type: "slow" });
    const request = {
      name: unique("clone"),
      volumeContentSource: { volume: { volumeId: source.volumeId } },
    };
    isCut = true;
    await assert.rejects(make({ type: "fast" }, request), { code: "UNAVAILABLE" });
    const { volumeId } = await make({ type: "fast" }, request);
    assert.equal((await now(volumeId)).type, "fast");
    const mutableParameters = { type: "slow" };
    await plugin.call("ControllerModifyVolume", { volumeId, mutableParameters });
    assert.equal((await make({ type: "fast" }, request)).volumeId, volumeId);
    assert.equal((await now(volumeId)).type, "slow", "what was changed since stays");
    // A clone of the clone has choices of its own.
    const second = await make({}, { volumeContentSource: { volume: { volumeId } } });
    assert.equal((await now(second.volumeId)).type, "slow");
  });
});
