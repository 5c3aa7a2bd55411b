/** Real container runtimes over the drivers that are not in the other suites of runtimes: btrfs and images. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openClient } from "@libstorage/client";
import type { Client } from "@libstorage/client";
import { cannotMount } from "../../client/host-fixture.js";
import { btrfsMissing, makeBtrfs } from "../../drivers/btrfs-loop.js";
import { toolsMissing } from "../../drivers/image-place.js";
import { scratchParent } from "../../faults/folders.js";
import { loopServiceMissing } from "../csi/loop-service.js";
import { ContainerHost, cannotContain, until } from "./container-host.js";
import type { Running } from "./container-host.js";

const NO_RUNTIME = cannotContain("runc", "nsenter", "ip");

interface Kind {
  readonly driver: string;
  readonly skip: string | false;
  /** The service's configuration, and how to remove what it stands on. */
  make(): { readonly config: string; readonly remove: () => void };
}

const KINDS: readonly Kind[] = [
  {
    driver: "btrfs",
    skip: NO_RUNTIME || btrfsMissing(),
    make() {
      const loop = makeBtrfs();
      const config = `it: { driver: btrfs, btrfs: { root: "${join(loop.folder, "volumes")}" } }`;
      return { config, remove: () => loop.remove() };
    },
  },
  {
    driver: "image",
    skip: NO_RUNTIME || cannotMount() || loopServiceMissing() || toolsMissing("qemu-img"),
    make() {
      const folder = mkdtempSync(join(scratchParent(), "runtimes-"));
      const config = `it: { driver: image, image: { root: "${folder}", format: raw } }`;
      return { config, remove: () => rmSync(folder, { recursive: true, force: true }) };
    },
  },
];

/** The words are the same for both. */
interface Runtime {
  readonly name: string;
  readonly skip: string | false;
  /** Starts what goes on in the background. */
  ready(host: ContainerHost): Promise<void>;
  must(host: ContainerHost, ...words: string[]): Promise<string>;
}

const RUNTIMES: readonly Runtime[] = [
  {
    name: "docker",
    skip: cannotContain("dockerd", "docker"),
    ready: async (host) => {
      await host.dockerd();
    },
    must: (host, ...words) => host.mustDocker(...words),
  },
  {
    name: "podman",
    skip: cannotContain("podman"),
    ready: async () => {},
    must: (host, ...words) => host.mustPodman(...words),
  },
];

for (const kind of KINDS)
  for (const runtime of RUNTIMES)
    describe(`${runtime.name} over ${kind.driver}`, { skip: kind.skip || runtime.skip }, () => {
      let host: ContainerHost;
      let client: Client;
      let plugin: Running;
      let remove = (): void => {};

      const must = (...words: string[]): Promise<string> => runtime.must(host, ...words);
      const alone = ["--network", "none", "-v", "web1:/data", "box"];
      const shell = (script: string): Promise<string> =>
        must("run", "--rm", ...alone, "sh", "-c", script);

      before(async () => {
        const made = kind.make();
        ({ remove } = made);
        host = await ContainerHost.start();
        await host.localServer(made.config);
        client = openClient({ host: host.localServerAddress });
        plugin = await host.localPlugin([], "it");
        await runtime.ready(host);
        await must("import", host.imageFile(), "box");
      });
      after(async () => {
        client?.close();
        await host?.close();
        remove();
      });

      it("writes in one container, reads in a second, and loses nothing with the plugin", async () => {
        await must("volume", "create", "--driver", "libstorage", "-o", "size=1", "web1");
        await shell("echo one > /data/f");
        assert.equal(await shell("cat /data/f"), "one");
        const id = await must("run", "-d", ...alone, "sleep", "300");
        assert.equal(host.mounts().length, 1);
        plugin.kill("SIGKILL");
        await plugin.ended;
        plugin = await host.localPlugin([], "it");
        assert.equal(await must("exec", id, "cat", "/data/f"), "one");
        assert.equal(await shell("echo two >> /data/f; cat /data/f"), "one\ntwo");
        assert.equal(host.mounts().length, 1, "the first container still has it");
        await must("rm", "-f", "-t", "0", id).catch(() => must("rm", "-f", id));
        await until("nothing is mounted", () => host.mounts().length === 0, 20_000);
        await must("volume", "rm", "web1");
        assert.deepEqual(await client.volumesByService({ service: "it" }, undefined, {}), {});
      });
    });
