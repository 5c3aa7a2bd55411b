#!/usr/bin/env node
// The command line, as `npm run build` bundles it.
const { main } = await import("../dist/bundle/main.mjs").catch((error) => {
  if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
  process.stderr.write("libstorage: not built yet; run npm run build in the checkout\n");
  process.exit(1);
});
process.exitCode = await main(process.argv.slice(2));
