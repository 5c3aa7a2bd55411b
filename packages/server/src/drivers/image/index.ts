/** image: each volume is an image file, raw, qcow2 or ISO, with its record beside it. */
import { join } from "node:path";
import { defineDriver } from "../../core/driver.js";
import { openRoot } from "../folders/root.js";
import { ImageConfig } from "./config.js";
import { ImageDriver } from "./driver.js";

export const image = defineDriver({
  name: "image",
  config: ImageConfig,
  async open(config, context) {
    const root = await openRoot(config.root ?? join(context.libFolder, "image"), context);
    return new ImageDriver(root, config, context);
  },
});
