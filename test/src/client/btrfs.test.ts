/** A btrfs volume from its making to a mounted volume of its snapshot, through server and client. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { openClient } from "@libstorage/client";
import { btrfsMissing, makeBtrfs } from "../drivers/btrfs-loop.js";
import { startServer } from "./fixture.js";
import { cannotMount, openHost } from "./host-fixture.js";

const SERVICE = "fast";

describe("btrfs volumes of a host", { skip: cannotMount() || btrfsMissing() }, () => {
  it("are mounted, snapshotted, restored, kept from others and given back", async () => {
    const loop = makeBtrfs();
    const server = await startServer({
      config: `      ${SERVICE}:
        driver: btrfs
        btrfs:
          root: ${loop.folder}/volumes
          quota: require`,
    });
    const client = openClient({ host: server.host });
    const host = await openHost(client, { service: SERVICE });
    const other = await openHost(client, { service: SERVICE, name: "host-b" });
    try {
      const { id } = await client.volumeCreate({ service: SERVICE }, { name: "web" }, {});
      assert.equal(id, "btrfs-000");
      const web = await host.volumes.mount("web", {}, {});
      assert.equal(web.kind, "mount");
      await writeFile(join(web.path, "file"), "then");
      const snapshot = await client.volumeSnapshot(
        { service: SERVICE, volumeID: id },
        { snapshotName: "before" },
        {},
      );
      await writeFile(join(web.path, "file"), "now");
      await assert.rejects(other.volumes.mount("web", {}, {}), /host-a/);
      await assert.rejects(
        client.volumeDetach(
          { service: SERVICE, volumeID: id },
          { force: true },
          { instanceIDs: [{ id: "host-a", driver: "btrfs", service: "" }] },
        ),
        /still mounted at/,
      );
      await client.volumeCreateFromSnapshot(
        { service: SERVICE, snapshotID: snapshot.id },
        { name: "restored" },
        {},
      );
      const restored = await other.volumes.mount("restored", {}, {});
      assert.equal(await readFile(join(restored.path, "file"), "utf8"), "then");
      assert.equal(await readFile(join(web.path, "file"), "utf8"), "now");
      await host.volumes.unmount("web", {}, {});
      await other.volumes.unmount("restored", {}, {});
      assert.deepEqual([...(await host.mounts()), ...(await other.mounts())], []);
      // By hand, so that the server knows of nobody who uses it.
      const [data, bound] = [join(loop.folder, "volumes/vol", id), join(loop.folder, "bound")];
      mkdirSync(bound);
      assert.equal(spawnSync("mount", ["--bind", data, bound]).status, 0);
      const removal = { service: SERVICE, volumeID: id, force: false };
      try {
        await assert.rejects(
          client.volumeRemove(removal, undefined, {}),
          /still mounted at .*bound/,
        );
      } finally {
        spawnSync("umount", [bound]);
      }
      assert.equal(await readFile(join(data, "data/file"), "utf8"), "now");
      await client.volumeRemove(removal, undefined, {});
      assert.ok(!existsSync(join(loop.folder, "volumes/vol", id)));
    } finally {
      await host.close();
      await other.close();
      client.close();
      await server.close();
      loop.remove();
    }
  });
});
