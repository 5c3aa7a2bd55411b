/** The CSI suite over one driver: the same cases for all, over the socket of a plugin with a server behind it. */
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import assert from "node:assert/strict";
import { join } from "node:path";
import type { CsiPluginOptions } from "@libstorage/client/csi";
import type { DriverModule } from "@libstorage/server";
import { startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { blockCases } from "./cases-blocks.js";
import { createCases } from "./cases-create.js";
import { identityCases } from "./cases-identity.js";
import { listCases } from "./cases-lists.js";
import { modifyCases } from "./cases-modify.js";
import { nodePublishCases } from "./cases-node-publish.js";
import { nodeUseCases } from "./cases-node-use.js";
import { publishCases } from "./cases-publish.js";
import { snapshotCases, withoutSnapshotsCases } from "./cases-snapshots.js";
import { sourceCases } from "./cases-sources.js";
import { stageCases } from "./cases-stage.js";
import { openTestPlugin } from "./csi-client.js";
import { World } from "./world.js";
import type { Kind } from "./world.js";

export interface CsiHarness extends Kind {
  /** Why the driver cannot be here, or false. */
  readonly skip: string | false;
  readonly service: string;
  /** Lines below `libstorage.server.services` for the service; made before the server starts. */
  configuration(): Promise<string> | string;
  /** In place of the server's own, by name. */
  readonly drivers?: Readonly<Record<string, DriverModule>>;
  /** Where the node finds its devices; once the server runs. */
  places?(): NonNullable<CsiPluginOptions["places"]>;
  /** On a slow machine: how long the whole and one call may take. */
  readonly limits?: { readonly suiteMs: number; readonly callMs: number };
  /** Why a group of cases is left out, or false. */
  leavesOut?(group: string): string | false;
  /** Cases of this driver alone. */
  more?(world: () => World): void;
  /** What `configuration` made. */
  remove?(): Promise<void> | void;
}

const SECRET = "hunter2-never-to-be-seen";

export function csiSuite(harness: CsiHarness): void {
  const { limits, skip } = harness;
  const timeout = limits?.suiteMs ?? 600_000;
  describe(`CSI over ${harness.name}`, { skip, timeout }, () => {
    let server: TestServer;
    let world: World;
    const current = (): World => world;

    before(async () => {
      const { drivers } = harness;
      server = await startServer({
        config: await harness.configuration(),
        ...(drivers !== undefined && { drivers }),
      });
      const folder = join(server.folder, "host");
      const places = harness.places?.();
      const plugin = await openTestPlugin({
        host: server.host,
        folder,
        service: harness.service,
        ...(places !== undefined && { places }),
        ...(limits !== undefined && { limitMs: limits.callMs }),
      });
      world = new World(harness, plugin, join(server.folder, "paths"));
    });
    after(async () => {
      await world.plugin.stop();
      await server.close();
      await harness.remove?.();
    });
    beforeEach(() => world.begin());
    afterEach(() => world.end());

    const group = (
      name: string,
      cases: (world: () => World) => void,
      isSkipped: string | false = false,
    ): void => {
      const leftOut = harness.leavesOut?.(name) ?? false;
      describe(name, { skip: isSkipped || leftOut }, () => cases(current));
    };
    group("Identity", identityCases);
    group("CreateVolume, DeleteVolume", createCases);
    group("sources and sizes", sourceCases);
    group("ControllerModifyVolume", modifyCases);
    group("lists", listCases);
    group("ControllerPublishVolume", publishCases);
    group("without snapshots", withoutSnapshotsCases);
    group("snapshots", snapshotCases);
    group(
      "blocks of snapshots",
      blockCases,
      harness.tellsBlocks !== true && "the driver does not know them",
    );
    const { noMounts } = harness;
    group("NodeStageVolume", stageCases, noMounts);
    group("NodePublishVolume", nodePublishCases, noMounts);
    group("volumes in use", nodeUseCases, noMounts);

    if (harness.more !== undefined) group("its own", (world) => harness.more?.(world), noMounts);

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
