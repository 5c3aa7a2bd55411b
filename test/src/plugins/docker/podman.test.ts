/** An unmodified podman that finds the plugin through containers.conf. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { openClient } from "@libstorage/client";
import type { Client } from "@libstorage/client";
import { cannotContain, ContainerHost, until } from "./container-host.js";
import type { Ran, Running } from "./container-host.js";

const SKIP = cannotContain("podman", "runc", "nsenter", "ip");

describe("Podman with the plugin", { skip: SKIP }, () => {
  let host: ContainerHost;
  let client: Client;
  let plugin: Running;

  const podman = (...words: string[]): Promise<Ran> => host.podman(...words);
  const must = (...words: string[]): Promise<string> => host.mustPodman(...words);
  const shell = (volume: string, script: string): Promise<string> =>
    must("run", "--rm", "--network", "none", "-v", `${volume}:/data`, "box", "sh", "-c", script);

  before(async () => {
    host = await ContainerHost.start();
    await host.localServer();
    client = openClient({ host: host.localServerAddress });
    plugin = await host.localPlugin();
    await must("import", host.imageFile(), "box");
  });
  after(async () => {
    client?.close();
    await host?.close();
  });

  async function holders(name: string): Promise<number> {
    const volumes = await client.volumesByService(
      { service: "vfs", attachments: 1 },
      undefined,
      {},
    );
    return Object.values(volumes).find((one) => one.name === name)?.attachments?.length ?? 0;
  }

  it("creates, writes, reads from a second container, and removes", async () => {
    await must("volume", "create", "--driver", "libstorage", "-o", "size=1", "web1");
    await shell("web1", "echo one > /data/f");
    assert.equal(await shell("web1", "cat /data/f"), "one");
    assert.deepEqual(host.mounts(), []);
    assert.equal(await holders("web1"), 0);
    assert.match(await must("volume", "inspect", "web1"), /"size": 1/);
    assert.match(await must("volume", "ls"), /libstorage\s+web1/);
    const refused = await podman("volume", "create", "--driver", "libstorage", "-o", "foo=1", "x1");
    assert.match(refused.stderr, /option "foo" is not known; there are size, type/);
    await must("volume", "rm", "web1");
    assert.deepEqual(await client.volumesByService({ service: "vfs" }, undefined, {}), {});
  });

  it("keeps a volume mounted while a container has it, also over the plugin's death", async () => {
    await must("volume", "create", "--driver", "libstorage", "vol");
    const volume = ["--network", "none", "-v", "vol:/data", "box"];
    const id = await must("run", "-d", ...volume, "sleep", "300");
    assert.equal(await shell("vol", "echo two > /data/f; cat /data/f"), "two");
    assert.equal(host.mounts().length, 1);
    plugin.kill("SIGKILL");
    await plugin.ended;
    plugin = await host.localPlugin();
    assert.equal(await must("exec", id, "cat", "/data/f"), "two");
    await must("rm", "-f", "-t", "0", id);
    await until("nothing is mounted", () => host.mounts().length === 0);
    assert.equal(await holders("vol"), 0);
    await must("volume", "rm", "vol");
  });

  it("adopts a volume that is there", async () => {
    const { id } = await client.volumeCreate({ service: "vfs" }, { name: "there", size: 1 }, {});
    await must("volume", "create", "--driver", "libstorage", "there");
    assert.equal(await shell("there", "echo x > /data/f; cat /data/f"), "x");
    await must("volume", "rm", "there");
    const left = await client.volumesByService({ service: "vfs" }, undefined, {});
    assert.ok(!Object.keys(left).includes(id));
  });
});
