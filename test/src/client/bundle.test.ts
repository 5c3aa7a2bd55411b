import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { BIN, run } from "./fixture.js";

const CLIENT = fileURLToPath(new URL("../../../packages/client/", import.meta.url));
const DIST = join(CLIENT, "dist");

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? filesBelow(join(folder, entry.name)) : [join(folder, entry.name)],
  );
}

/** What runs: neither types nor maps nor tests. */
const shipped = filesBelow(DIST).filter(
  (file) => !/\.d\.ts$|\.map$|\.test\.js$|\.tsbuildinfo$/.test(file),
);

/** A plugin for a container runtime is a front-end of its own, which the client works without. */
const isPlugin = (file: string): boolean => /\/plugins?[-/]/.test(file.slice(DIST.length));

describe("the client's size", () => {
  it("is below 1 MB, library and bundles together", () => {
    const bytes = shipped
      .filter((file) => !isPlugin(file))
      .reduce((sum, file) => sum + statSync(file).size, 0);
    assert.ok(bytes > 100_000, "it is not built");
    assert.ok(bytes < 1_000_000, `${bytes} bytes`);
  });

  it("has at most six runtime packages", () => {
    const { dependencies, version } = JSON.parse(
      readFileSync(join(CLIENT, "package.json"), "utf8"),
    ) as { dependencies: Record<string, string>; version: string };
    assert.ok(Object.keys(dependencies).length <= 6, Object.keys(dependencies).join(" "));
    assert.ok(readFileSync(join(DIST, "version.js"), "utf8").includes(`"${version}"`));
  });

  it("has no server code, and the library imports nothing but its packages", () => {
    const { dependencies, optionalDependencies } = JSON.parse(
      readFileSync(join(CLIENT, "package.json"), "utf8"),
    ) as Record<"dependencies" | "optionalDependencies", Record<string, string>>;
    const always = new Set(Object.keys(dependencies));
    const forPlugins = new Set([...always, ...Object.keys(optionalDependencies)]);
    for (const file of shipped) {
      const text = readFileSync(file, "utf8");
      assert.ok(!text.includes("@libstorage/server"), file);
      assert.ok(!/["'`](?:koa|lmdb|pino|node-forge)["'`]/.test(text), file);
      if (file.includes("/bundle/") || file.includes("/executors/")) continue;
      const allowed = isPlugin(file) ? forPlugins : always;
      for (const [, name = ""] of text.matchAll(/(?:\bfrom|\bimport\()\s*"([^"\s]+)"/g))
        assert.ok(
          name.startsWith("node:") || name.startsWith(".") || allowed.has(name),
          `${file} imports ${name}`,
        );
    }
  });

  it("loads the library without the plugins, executors or the command line", async () => {
    const seen = new Set<string>();
    const follow = (file: string): void => {
      if (seen.has(file)) return;
      seen.add(file);
      const text = readFileSync(file, "utf8");
      for (const [, name = ""] of text.matchAll(/^(?:import|export)[^"]*"(\.[^"]+)"/gm))
        follow(join(file, "..", name));
    };
    follow(join(DIST, "index.js"));
    const names = [...seen].map((file) => file.slice(DIST.length + 1));
    assert.ok(names.includes("client.js"));
    for (const name of names) assert.ok(!/^(?:cli|commands|executor|host)\//.test(name), name);
  });

  it("loads for a list neither execa nor YAML nor Node's fetch", async () => {
    const probe = `
const { main } = require(${JSON.stringify(join(DIST, "bundle/main.cjs"))});
void main(["volume", "ls", "-s", "x", "--host", "unix:///none"]).then(() => {
  const loaded = Object.keys(require.cache).map((file) => file.split("/").at(-1));
  const builtin = process.moduleLoadList.map((name) => name.split(" ").at(-1));
  process.stdout.write(JSON.stringify({ loaded, builtin }));
});`;
    const { stdout } = await run("-e", [probe]);
    const { loaded, builtin } = JSON.parse(stdout) as { loaded: string[]; builtin: string[] };
    assert.ok(loaded.some((name) => name.startsWith("volume-ls")));
    for (const name of loaded)
      assert.ok(!/^(?:execa|dist|host-volumes|plugin-csi-|@grpc)/.test(name), name);
    for (const name of [
      "internal/deps/undici/undici",
      "internal/http2/core",
      "child_process",
      "_tls_wrap",
    ])
      assert.ok(!builtin.includes(name), name);
  });

  it("says what to do when it is not built", async () => {
    const text = readFileSync(BIN, "utf8");
    assert.match(text, /run npm run build/);
    assert.ok((statSync(BIN).mode & 0o111) !== 0);
  });
});
