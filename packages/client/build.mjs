/**
 * Bundles what starts often: the command line (`dist/bundle/main.cjs`, in parts that are loaded when needed)
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

/** Loading TLS takes a while, and most clients sit on the server's host, before its Unix socket. */
const LAZY_HTTPS = `
const lazy = {};
for (const name of ["request", "Agent", "globalAgent"])
  Object.defineProperty(lazy, name, { get: () => process.getBuiltinModule("node:https")[name] });
export default lazy;
`;

const leaveOut = {
  name: "leave-out-unused",
  resolveId(id, importer) {
    const isAxios = importer?.startsWith(axios) === true;
    if (isAxios && id === "https") return "\0lazy:https";
    if (isAxios && (UNUSED.has(id) || UNUSED_ADAPTERS.test(id))) return `\0unused:${id}`;
    return undefined;
  },
  load(id) {
    if (id === "\0lazy:https") return LAZY_HTTPS;
    return id.startsWith("\0unused:") ? EMPTY : undefined;
  },
  transform(code, id) {
    // Asking whether there is a global FormData makes Node load its whole fetch, for 25 ms.
    if (id !== join(axios, "lib", "utils.js")) return undefined;
    const text = "typeof G.FormData !== 'undefined' ? G.FormData : undefined";
    if (!code.includes(text)) throw new Error(`${id} has changed: look for G.FormData in it`);
    return code.replace(text, "undefined");
  },
};

const shared = {
  platform: "node",
  // The sources of the library, not its build for use without a bundler.
  resolve: { alias: { axios: join(axios, "index.js") } },
  plugins: [leaveOut],
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
            test: /client\/dist\/(?:cli\/(?!help|overview|complet)|(?!tls-|known-)[\w-]+\.js$)|model\/dist|axios|valibot/,
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
