// Sets everything up and runs the whole suite. `npm test [-- PART_OF_A_FILE_NAME…]`
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT, build, certificates, install, run, say, testFiles } from "./setup.mjs";

const { packages } = JSON.parse(readFileSync(join(ROOT, "scripts/test-packages.json"), "utf8"));

function missingPackages() {
  const { stdout } = spawnSync("dpkg-query", ["-W", "-f", "${Package} ${db:Status-Status}\\n"], {
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  });
  const there = new Set(
    (stdout ?? "")
      .split("\n")
      .filter((line) => line.endsWith(" installed"))
      .map((line) => line.split(" ")[0]),
  );
  return Object.keys(packages).filter((name) => !there.has(name));
}

/** Tests whose tool is missing skip themselves; this only makes that rare. */
function installTools() {
  if (!existsSync("/etc/debian_version") || process.env["LIBSTORAGE_TEST_NO_APT"] === "1") return;
  const missing = missingPackages();
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) {
    say(`not installed, and only root can: ${missing.join(", ")}`);
    return;
  }
  say(`apt-get install ${missing.join(" ")}`);
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const apt = (...args) =>
    spawnSync(
      "apt-get",
      ["-q", "-o", "Acquire::Retries=2", "-o", "DPkg::Lock::Timeout=120", ...args],
      {
        env,
        encoding: "utf8",
        timeout: 600_000,
      },
    );
  const add = (names) => apt("install", "-y", "--no-install-recommends", ...names);
  apt("update");
  // One package that cannot be had must not keep the others away.
  if (add(missing).status !== 0) for (const name of missing) add([name]);
  for (const name of missingPackages())
    say(`could not be installed: ${name} (${packages[name]}); its tests are skipped`);
}

install();
installTools();
say("build");
build();
certificates();

const wanted = process.argv.slice(2);
const files = testFiles().filter(
  (file) => wanted.length === 0 || wanted.some((part) => file.includes(part)),
);
if (files.length === 0) {
  console.error(`no test file has a name with ${wanted.join(" or ")}`);
  process.exit(1);
}
say(`${files.length} test files`);
const reporter = new URL("test-reporter.mjs", import.meta.url).href;
process.exit(
  run(process.execPath, [
    "--enable-source-maps",
    "--test",
    "--test-timeout=900000",
    `--test-reporter=${reporter}`,
    "--test-reporter-destination=stdout",
    ...files,
  ]),
);
