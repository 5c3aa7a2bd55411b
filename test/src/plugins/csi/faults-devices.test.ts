import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { cannotMount } from "../../client/host-fixture.js";
import { scratchParent } from "../../faults/folders.js";
import { faultSuite } from "./fault-suite.js";
import { LOOP_DRIVER, loopDriver, loopServiceAt, loopServiceMissing } from "./loop-service.js";

const loops = loopDriver();
let images = "";
faultSuite({
  name: "devices",
  service: "devices",
  isBlock: true,
  skip: cannotMount() || loopServiceMissing(),
  drivers: { [LOOP_DRIVER]: loops.module },
  configuration() {
    images = mkdtempSync(join(scratchParent(), "csi-loops-"));
    return loopServiceAt(images);
  },
  places: () => loops.devices().places,
  left: () => readdirSync(join(images, "images")),
  remove: () => rmSync(images, { recursive: true, force: true }),
});
