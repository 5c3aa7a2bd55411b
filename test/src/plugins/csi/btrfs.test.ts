import { cannotMount } from "../../client/host-fixture.js";
import { btrfsMissing, makeBtrfs } from "../../drivers/btrfs-loop.js";
import type { LoopFileSystem } from "../../loop.js";
import { csiSuite } from "./suite.js";

const noMounts = cannotMount();
let loop: LoopFileSystem | undefined;
csiSuite({
  name: "btrfs",
  driver: "btrfs",
  service: "fast",
  isBlock: false,
  noMounts,
  skip: noMounts || btrfsMissing(),
  configuration() {
    loop = makeBtrfs();
    return `      fast:\n        driver: btrfs\n        btrfs:\n          root: ${loop.folder}/volumes`;
  },
  remove: () => loop?.remove(),
});
