import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cannotMount } from "../../client/host-fixture.js";
import { toolsMissing } from "../../drivers/image-place.js";
import { scratchParent } from "../../faults/folders.js";
import { loopServiceMissing } from "./loop-service.js";
import { csiSuite } from "./suite.js";

const noMounts = cannotMount();
let folder = "";
csiSuite({
  name: "image",
  driver: "image",
  service: "disks",
  isBlock: true,
  tellsBlocks: true,
  noMounts,
  noFarNodes: "without an exporter only this host can have image volumes",
  skip: noMounts || loopServiceMissing() || toolsMissing("qemu-img", "qemu-io"),
  configuration() {
    folder = mkdtempSync(join(scratchParent(), "csi-image-"));
    return `      disks:\n        driver: image\n        image:\n          root: ${folder}\n          format: raw`;
  },
  remove: () => rmSync(folder, { recursive: true, force: true }),
});
