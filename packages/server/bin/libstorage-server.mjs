#!/usr/bin/env node
import { existsSync } from "node:fs";

const main = new URL("../bundle/main.js", import.meta.url);
if (existsSync(main)) {
  const { main: run } = await import(main.href);
  process.exitCode = await run(process.argv.slice(2));
} else {
  process.stderr.write("libstorage-server is not built yet: run npm run build\n");
  process.exitCode = 1;
}
