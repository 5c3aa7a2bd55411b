// Joins the server's modules and libraries into a few files below bundle/, which load several times faster
// than hundreds of small ones. LMDB and ffi-rs stay outside: their native parts are found from their own
// folders.
import { rmSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

rmSync(here("bundle"), { recursive: true, force: true });
const fromKoa = createRequire(import.meta.resolve("koa"));
const bundle = await rolldown({
  input: {
    main: here("dist/main.js"),
    "journal-check": here("dist/core/journal-check.js"),
    spawner: here("dist/core/spawner.js"),
  },
  platform: "node",
  external: [/^node:/, "lmdb", "ffi-rs"],
  resolve: {
    mainFields: ["module", "main"],
    // Koa's parts bring the same long table of media types several times, and each sorts it at its start.
    alias: Object.fromEntries(
      ["mime-db", "mime-types"].map((name) => [name, fromKoa.resolve(name)]),
    ),
  },
  checks: { eval: false },
});
await bundle.write({ dir: here("bundle"), format: "esm", minify: true });
await bundle.close();
