// What every command of the checkout needs first: the packages, the build, the certificates.
// Plain Node without packages, since it runs before they are installed.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));

/** The program of the server in this checkout. */
export const SERVER = join(ROOT, "packages/server/bin/libstorage-server.mjs");

/** Says what happens, apart from the output of what runs. */
export function say(text) {
  console.error(`> ${text}`);
}

export function fail(text) {
  console.error(`\n${text}`);
  process.exit(1);
}

/** Runs a program in the checkout and answers its exit code. */
export function run(file, args, options = {}) {
  const result = spawnSync(file, args, { cwd: ROOT, stdio: "inherit", ...options });
  if (result.error !== undefined) fail(`${file} could not be run: ${result.error.message}`);
  return result.status ?? 1;
}

/** Runs a program and ends with its exit code when it fails. */
export function must(file, args, options) {
  const status = run(file, args, options);
  if (status !== 0) process.exit(status);
}

function readJson(path) {
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
}

/** Why the packages must be installed, or undefined when what is there is what the lock file says. */
function whatIsMissing() {
  const modules = join(ROOT, "node_modules");
  if (!existsSync(modules)) return "node_modules is missing";
  const installed = readJson(join(modules, ".package-lock.json"))?.packages;
  if (installed === undefined) return "node_modules was not made by npm";
  const wanted = readJson(join(ROOT, "package-lock.json"))?.packages ?? {};
  for (const [path, { version, link, optional }] of Object.entries(wanted)) {
    if (!path.startsWith("node_modules/")) continue;
    // Packages for other platforms are in the lock file, but not installed.
    const there = installed[path];
    if (there === undefined && optional === true) continue;
    if (link === true ? !existsSync(join(ROOT, path)) : there?.version !== version)
      return `${path.slice("node_modules/".length)} is not as package-lock.json says`;
  }
  for (const name of ["libstorage", "libstorage-server"])
    if (hasBin(name) && !existsSync(join(modules, ".bin", name)))
      return `node_modules/.bin/${name} is missing`;
  return undefined;
}

/** Whether a package of the checkout really has the program that its package.json names. */
function hasBin(name) {
  return readdirSync(join(ROOT, "packages")).some((folder) =>
    existsSync(join(ROOT, "packages", folder, "bin", `${name}.mjs`)),
  );
}

const LEAST_NODE = [20, 19];

export function install() {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major < LEAST_NODE[0] || (major === LEAST_NODE[0] && minor < LEAST_NODE[1]))
    fail(`Node ${LEAST_NODE.join(".")} or newer is needed; this is ${process.versions.node}`);
  const why = whatIsMissing();
  if (why === undefined) return;
  // Not "npm ci": that refuses a lock file which does not list the packages of other platforms, and npm
  // leaves them out where its registry has none. Without saving, the lock file counts and stays as it is.
  say(`npm install (${why})`);
  must("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"]);
}

function* filesBelow(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else yield path;
  }
}

/** Every folder with a tsconfig of its own. */
export function projects() {
  const packages = readdirSync(join(ROOT, "packages")).map((name) => join(ROOT, "packages", name));
  return [...packages, join(ROOT, "test"), join(ROOT, "bench")].filter((folder) =>
    existsSync(join(folder, "tsconfig.json")),
  );
}

/** `tsc -b` leaves the output of a deleted source, whose test would still run. */
export function removeStale() {
  for (const project of projects()) {
    const dist = join(project, "dist");
    if (!existsSync(dist)) continue;
    for (const path of filesBelow(dist)) {
      // Only the compiler makes declarations; other files of dist are bundles.
      if (!path.endsWith(".d.ts")) continue;
      const stem = relative(dist, path).slice(0, -".d.ts".length);
      if (existsSync(join(project, "src", `${stem}.ts`))) continue;
      for (const end of [".d.ts", ".d.ts.map", ".js", ".js.map"])
        rmSync(join(dist, stem + end), { force: true });
    }
  }
}

/** Without its output a project counts as built while its build info is there. */
function forgetLostBuilds() {
  for (const project of projects())
    if (!existsSync(join(project, "dist")))
      rmSync(join(project, "tsconfig.tsbuildinfo"), { force: true });
}

export function build() {
  removeStale();
  forgetLostBuilds();
  must(process.execPath, [join(ROOT, "node_modules/typescript/bin/tsc"), "-b"]);
  // What is started often, or shipped as a single file, is joined from the compiled sources.
  for (const project of projects()) {
    const more = join(project, "build.mjs");
    if (existsSync(more)) must(process.execPath, [more]);
  }
}

/** The development certificates in `.tls`. */
export function certificates(args = []) {
  must(process.execPath, [SERVER, "tls", "init", "--folder", join(ROOT, ".tls"), ...args], {
    stdio: ["ignore", "ignore", "inherit"],
  });
}

/** Every compiled test. */
export function testFiles() {
  return projects()
    .map((project) => join(project, "dist"))
    .filter((dist) => existsSync(dist))
    .flatMap((dist) => [...filesBelow(dist)])
    .filter((path) => path.endsWith(".test.js"))
    .map((path) => relative(ROOT, path))
    .toSorted((a, b) => (a < b ? -1 : 1));
}
