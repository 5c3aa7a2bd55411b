/**
 * Bundles what starts often: the command line (`dist/bundle/main.mjs`, in parts that are loaded when needed)
 * and the executor (`dist/executors/lsx-linux`, one file). Loading axios with all it depends on takes
 * longer than Node itself does; parts of it that this client never uses are left out here.
 */
import { chmod, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "rolldown";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const axios = dirname(createRequire(import.meta.url).resolve("axios/package.json"));

/** No forms, redirects, proxies or HTTP/2 are used (`maxRedirects: 0`, `proxy: false`, `adapter: "http"`). */
const UNUSED = new Set([
  "form-data",
  "follow-redirects",
  "proxy-from-env",
  "https-proxy-agent",
  "http2",
]);
const UNUSED_ADAPTERS = /\/(?:xhr|fetch)\.js$/;
const EMPTY = `
const nothing = { constants: {} };
export default nothing;
export const constants = {};
export const getProxyForUrl = () => "";
export const getFetch = undefined;
`;

const leaveOut = {
  name: "leave-out-unused",
  resolveId(id, importer) {
    const isAxios = importer?.startsWith(axios) === true;
    if (isAxios && (UNUSED.has(id) || UNUSED_ADAPTERS.test(id))) return `\0unused:${id}`;
    return undefined;
  },
  load: (id) => (id.startsWith("\0unused:") ? EMPTY : undefined),
};

const shared = {
  platform: "node",
  // The sources of the library, not its build for use without a bundler.
  resolve: { alias: { axios: join(axios, "index.js") } },
  plugins: [leaveOut],
  treeshake: true,
};

/** Builds both bundles anew. */
export async function buildClient() {
  await rm(join(dist, "bundle"), { recursive: true, force: true });
  await build({
    ...shared,
    input: join(dist, "main.js"),
    output: {
      dir: join(dist, "bundle"),
      format: "esm",
      minify: true,
      entryFileNames: "main.mjs",
      chunkFileNames: "[name]-[hash].mjs",
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
