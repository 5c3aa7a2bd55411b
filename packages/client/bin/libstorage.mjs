#!/usr/bin/env node
// The command line, as `npm run build` bundles it.
import { createRequire } from "node:module";

/** @returns {typeof import("../dist/main.js")} */
function load() {
  try {
    return createRequire(import.meta.url)("../dist/bundle/main.cjs");
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    process.stderr.write("libstorage: not built yet; run npm run build in the checkout\n");
    process.exit(1);
  }
}

process.exitCode = await load().main(process.argv.slice(2));
