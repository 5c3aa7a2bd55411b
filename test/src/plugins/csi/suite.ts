/** The CSI suite over one driver: the same cases for all, over the socket of a plugin with a server behind it. */
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import assert from "node:assert/strict";
import { join } from "node:path";
import { startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { createCases } from "./cases-create.js";
import { identityCases } from "./cases-identity.js";
import { listCases } from "./cases-lists.js";
import { nodeCases } from "./cases-node.js";
import { publishCases } from "./cases-publish.js";
import { snapshotCases, withoutSnapshotsCases } from "./cases-snapshots.js";
import { sourceCases } from "./cases-sources.js";
import { openTestPlugin } from "./csi-client.js";
import { World } from "./world.js";
import type { Kind } from "./world.js";

export interface CsiHarness extends Kind {
  /** Why the driver cannot be here, or false. */
  readonly skip: string | false;
  readonly service: string;
  /** Lines below `libstorage.server.services` for the service; made before the server starts. */
  configuration(): Promise<string> | string;
  /** What `configuration` made. */
  remove?(): Promise<void> | void;
}

const SECRET = "hunter2-never-to-be-seen";

export function csiSuite(harness: CsiHarness): void {
  describe(`CSI over ${harness.name}`, { skip: harness.skip, timeout: 600_000 }, () => {
    let server: TestServer;
    let world: World;
    const current = (): World => world;

    before(async () => {
      server = await startServer({ config: await harness.configuration() });
      const folder = join(server.folder, "host");
      const plugin = await openTestPlugin({ host: server.host, folder, service: harness.service });
      world = new World(harness, plugin, join(server.folder, "paths"));
    });
    after(async () => {
      await world.plugin.stop();
      await server.close();
      await harness.remove?.();
    });
    beforeEach(() => world.begin());
    afterEach(() => world.end());

    describe("Identity", () => identityCases(current));
    describe("CreateVolume, DeleteVolume", () => createCases(current));
    describe("sources and sizes", () => sourceCases(current));
    describe("lists", () => listCases(current));
    describe("ControllerPublishVolume", () => publishCases(current));
    describe("without snapshots", () => withoutSnapshotsCases(current));
    describe("snapshots", () => snapshotCases(current));
    describe("Node", { skip: harness.noMounts }, () => nodeCases(current));

    it("secrets reach neither log nor error", async () => {
      const secrets = { password: SECRET };
      const name = "with-secrets";
      const volumeCapabilities = [world.cap()];
      const { volume } = await world.call("CreateVolume", { name, volumeCapabilities, secrets });
      const { volumeId } = volume;
      await world.fails("NOT_FOUND", "ControllerPublishVolume", {
        volumeId,
        nodeId: "nobody",
        volumeCapability: world.cap(),
        secrets,
      });
      const flags = world.cap("SINGLE_NODE_WRITER", { mountFlags: [`password=${SECRET} `] });
      await world.fails("INVALID_ARGUMENT", "NodeStageVolume", {
        volumeId,
        stagingTargetPath: "/x/y",
        volumeCapability: flags,
        secrets,
      });
      await world.call("DeleteVolume", { volumeId, secrets });
      assert.ok(world.plugin.log.length > 3);
      assert.ok(!JSON.stringify(world.plugin.log).includes(SECRET));
    });
  });
}
