import { testDriver } from "../conformance.js";
import { IMAGE_CASES } from "./image-cases.js";
import { imageHarness } from "./image-place.js";

const SEE_RAW = "where an operation is cut is the same as for qcow2";

testDriver("image, raw", imageHarness({ format: "raw" }, SEE_RAW), IMAGE_CASES);
testDriver("image, qcow2", imageHarness({ format: "qcow2" }, true), IMAGE_CASES);
testDriver(
  "image, qcow2 with overlays",
  imageHarness({ format: "qcow2", copies: "overlays", snapshots: "overlays" }, true),
  IMAGE_CASES,
);
testDriver(
  "image, qcow2 with inner snapshots",
  imageHarness({ format: "qcow2", snapshots: "inner" }, true),
  IMAGE_CASES,
);
