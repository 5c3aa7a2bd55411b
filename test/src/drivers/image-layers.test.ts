/** The driver contract over images that share layers. */
import { testDriver } from "../conformance.js";
import { IMAGE_CASES } from "./image-cases.js";
import { LIVE_CASES } from "./image-live.js";
import { imageHarness } from "./image-place.js";

testDriver(
  "image, qcow2 with overlays",
  imageHarness({ format: "qcow2", copies: "overlays", snapshots: "overlays" }, true),
  [...IMAGE_CASES, ...LIVE_CASES],
);
testDriver(
  "image, qcow2 with inner snapshots",
  imageHarness({ format: "qcow2", snapshots: "inner" }, true),
  IMAGE_CASES,
);
