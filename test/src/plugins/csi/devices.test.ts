import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cannotMount } from "../../client/host-fixture.js";
import { scratchParent } from "../../faults/folders.js";
import { deviceCases } from "./cases-device.js";
import { LOOP_DRIVER, loopDriver, loopServiceAt, loopServiceMissing } from "./loop-service.js";
import { csiSuite } from "./suite.js";

const noMounts = cannotMount();
const loops = loopDriver();
let images = "";
csiSuite({
  name: "devices",
  driver: LOOP_DRIVER,
  service: "devices",
  isBlock: true,
  noMounts,
  skip: noMounts || loopServiceMissing(),
  drivers: { [LOOP_DRIVER]: loops.module },
  configuration() {
    images = mkdtempSync(join(scratchParent(), "csi-loops-"));
    return loopServiceAt(images);
  },
  places: () => loops.devices().places,
  more: (world) => deviceCases(world, () => loops.devices()),
  remove: () => rmSync(images, { recursive: true, force: true }),
});
