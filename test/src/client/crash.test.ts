import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { CrashPlan } from "./crash-child.js";
import { run, startServer } from "./fixture.js";
import type { Ran, TestServer } from "./fixture.js";
import { cannotMount, openHost } from "./host-fixture.js";
import type { TestHost } from "./host-fixture.js";

const CHILD = fileURLToPath(new URL("crash-child.js", import.meta.url));
const MOST_POINTS = 40;

for (const isRoot of [true, false])
  describe(
    `a client that is killed in the middle, ${isRoot ? "with mounts" : "with links"}`,
    { skip: isRoot ? cannotMount() : false },
    () => {
      let server: TestServer;
      before(async () => {
        server = await startServer();
      });
      after(() => server.close());

      async function withVolume(
        name: string,
        act: (host: TestHost, volumeID: string) => Promise<void>,
      ): Promise<void> {
        const { service } = server.app;
        const { id } = await service.volumeCreate({ service: "vfs" }, { name }, {});
        const host = await openHost(service, { isRoot });
        try {
          await act(host, id);
          // Nothing is left, wherever the client died.
          assert.deepEqual(await host.mounts(), [], "mounts");
          const folder = join(host.folder, "var/lib");
          assert.deepEqual(await readdir(join(folder, "volumes")).catch(() => []), [], "folders");
          const records = await readdir(join(folder, "mounts/test/vfs"));
          assert.deepEqual(
            records.filter((file) => !file.endsWith(".lock")),
            [],
            "records",
          );
          const params = { service: "vfs", volumeID: id, attachments: 1 };
          const volume = await service.volumeInspect(params, undefined, {});
          assert.deepEqual(volume.attachments ?? [], [], "attachments");
          await service.volumeRemove({ service: "vfs", volumeID: id }, undefined, {});
        } finally {
          await host.close();
        }
      }

      function die(operation: CrashPlan["operation"], volume: string, host: TestHost, at: number) {
        const { folder } = host;
        const plan: CrashPlan = { host: server.host, folder, isRoot, operation, volume, at };
        return run(CHILD, [JSON.stringify(plan)]);
      }

      /** Kills at every point in turn, until there is none left. */
      async function everywhere(
        name: string,
        once: (host: TestHost, volumeID: string, at: number) => Promise<Ran>,
      ): Promise<void> {
        for (let at = 1; at < MOST_POINTS; at += 1) {
          let isOver = false;
          await withVolume(`${name}-${at}`, async (host, volumeID) => {
            const { code, stdout, stderr } = await once(host, volumeID, at);
            isOver = code !== null;
            if (isOver) {
              assert.equal(code, 0, stderr);
              assert.ok(Number(stdout) >= 6, `only ${stdout} points`);
            }
          });
          if (isOver) return;
        }
        assert.fail("it has no end");
      }

      // Links go the same ways; one of them shows it.
      const both = { skip: isRoot ? false : "tried with mounts" };

      it("during a mount: mounting again mounts, with one use", both, async () => {
        await everywhere("again", async (host, volumeID, at) => {
          const ran = await die("mount", volumeID, host, at);
          const { users } = await host.volumes.mount(volumeID, {}, {});
          assert.equal(users, ran.code === 0 ? 2 : 1);
          for (let left = users - 1; left >= 0; left -= 1)
            assert.equal((await host.volumes.unmount(volumeID, {}, {})).users, left);
          return ran;
        });
      });

      it("during a mount: unmounting cleans up", async () => {
        await everywhere("cleanup", async (host, volumeID, at) => {
          const ran = await die("mount", volumeID, host, at);
          await host.volumes.unmount(volumeID, {}, {}).catch((error: Error) => {
            assert.match(error.message, /is not mounted on this host; it is attached nowhere/);
          });
          return ran;
        });
      });

      it("during an unmount: unmounting again ends it", both, async () => {
        await everywhere("unmount", async (host, volumeID, at) => {
          await host.volumes.mount(volumeID, {}, {});
          const ran = await die("unmount", volumeID, host, at);
          await host.volumes.unmount(volumeID, {}, {}).catch((error: Error) => {
            assert.match(error.message, /is not mounted on this host; it is attached nowhere/);
          });
          return ran;
        });
      });
    },
  );
