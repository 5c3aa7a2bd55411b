/**
 * Bundles what starts often: the command line (`dist/bundle/main.cjs`, in parts that are loaded when needed)
 * and the executor (`dist/executors/lsx-linux`, one file).
 */
import { chmod, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "rolldown";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");

const shared = {
  platform: "node",
  treeshake: true,
  // Only the CSI plugin needs the one; the client works without either.
  external: [/^@grpc\//, "ffi-rs"],
};

/** Builds both bundles anew. */
export async function buildClient() {
  await rm(join(dist, "bundle"), { recursive: true, force: true });
  await build({
    ...shared,
    input: join(dist, "main.js"),
    output: {
      dir: join(dist, "bundle"),
      // Importing Node's own modules the other way calls each of their getters, which loads half of Node.
      format: "cjs",
      minify: true,
      entryFileNames: "main.cjs",
      chunkFileNames: "[name]-[hash].cjs",
      // What every command loads is one file; what few need stands apart.
      codeSplitting: {
        groups: [
          {
            name: "base",
            priority: 2,
            test: /client\/dist\/(?:cli\/(?!help|overview|complet)|(?!tls-|known-)[\w-]+\.js$)|model\/dist|valibot/,
          },
          { name: "plugin-docker", test: /client\/dist\/plugins\/docker\// },
          { name: "plugin-csi", test: /client\/dist\/plugins\/csi\// },
        ],
      },
    },
  });
  await build({
    ...shared,
    input: join(dist, "executor", "lsx-main.js"),
    output: {
      file: join(dist, "executors", "lsx-linux"),
      format: "cjs",
      minify: true,
      codeSplitting: false,
      // Without an ending Node takes the file for either kind of module, after the folder it lies in.
      banner: "#!/usr/bin/env node\n((require) => {",
      footer: '})(process.getBuiltinModule("node:module").createRequire(process.execPath));',
    },
  });
  await chmod(join(dist, "executors", "lsx-linux"), 0o755);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildClient();
