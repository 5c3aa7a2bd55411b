// Joins the server's modules and libraries into a few files below bundle/, which load several times faster
// than hundreds of small ones. LMDB stays outside: its native part is found from its own folder.
import { rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

rmSync(here("bundle"), { recursive: true, force: true });
const bundle = await rolldown({
  input: { main: here("dist/main.js"), "journal-check": here("dist/core/journal-check.js") },
  platform: "node",
  external: [/^node:/, "lmdb"],
  resolve: { mainFields: ["module", "main"] },
  checks: { eval: false },
});
await bundle.write({ dir: here("bundle"), format: "esm", minify: true, sourcemap: true });
await bundle.close();
