/** image: each volume is an image file, raw, qcow2 or ISO, with its record beside it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineDriver } from "../../core/driver.js";
import { openRoot } from "../folders/root.js";
import { ImageConfig } from "./config.js";
import { ImageDriver } from "./driver.js";
import { IMPORT_FOLDER } from "./import.js";

export const image = defineDriver({
  name: "image",
  config: ImageConfig,
  async open(config, context) {
    const root = await openRoot(config.root ?? join(context.libFolder, "image"), context);
    const folder = join(root, IMPORT_FOLDER);
    if (!existsSync(folder)) await context.files.makeFolder(folder);
    return new ImageDriver(root, config, context);
  },
});
