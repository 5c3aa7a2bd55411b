/** The Docker plugin over every driver that this host can have without LVM. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { makeFolder, startServer } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { btrfsMissing, makeBtrfs } from "../../drivers/btrfs-loop.js";
import { toolsMissing } from "../../drivers/image-place.js";
import { scratchParent } from "../../faults/folders.js";
import type { LoopFileSystem } from "../../loop.js";
import { loopServiceMissing } from "../csi/loop-service.js";
import { openPlugin } from "./plugin-fixture.js";
import { dockerSuite } from "./suite.js";

const noMounts = cannotMount();
const noImages = noMounts || loopServiceMissing() || toolsMissing("qemu-img", "qemu-io");

dockerSuite({
  name: "vfs",
  service: "vfs",
  isBlock: false,
  skip: noMounts,
  configuration: () => "",
});

let loop: LoopFileSystem | undefined;
dockerSuite({
  name: "btrfs",
  service: "fast",
  isBlock: false,
  skip: noMounts || btrfsMissing(),
  configuration() {
    loop = makeBtrfs();
    return `      fast:\n        driver: btrfs\n        btrfs:\n          root: ${loop.folder}/volumes`;
  },
  remove: () => loop?.remove(),
});

const imageService = (root: string, format: string): string =>
  `      disks:\n        driver: image\n        image:\n          root: ${root}\n          format: ${format}`;

let images = "";
dockerSuite({
  name: "image",
  service: "disks",
  isBlock: true,
  skip: noImages,
  configuration() {
    images = mkdtempSync(join(scratchParent(), "docker-image-"));
    return imageService(images, "raw");
  },
  remove: () => rmSync(images, { recursive: true, force: true }),
});

describe("Docker over qcow2 images", { skip: noImages }, () => {
  it("makes them, and says why no container can have one", async () => {
    const root = mkdtempSync(join(scratchParent(), "docker-qcow2-"));
    const folder = await makeFolder();
    const server = await startServer({ config: imageService(root, "qcow2") });
    const plugin = await openPlugin({ host: server.host, folder, service: "disks" });
    try {
      await plugin.ok("Create", { Name: "v", Opts: { size: "1" } });
      assert.match(
        await plugin.err("Mount", { Name: "v", ID: "c" }),
        /is a qcow2 image, which a loop device cannot show; convert it to raw/,
      );
      const { Volume } = (await plugin.ok("Get", { Name: "v" })) as {
        Volume: { Status: Record<string, unknown> };
      };
      assert.equal(Volume.Status["attachedTo"], undefined, "given back");
      await plugin.ok("Remove", { Name: "v" });
    } finally {
      await plugin.close();
      await server.close();
      for (const one of [root, folder]) rmSync(one, { recursive: true, force: true });
    }
  });
});
