// Debian packages that tests need. Tests whose tool is missing skip themselves; this only makes that rare.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT, say } from "./setup.mjs";

const lists = JSON.parse(readFileSync(join(ROOT, "scripts/test-packages.json"), "utf8"));

function missingOf(packages) {
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

function apt(...args) {
  const options = ["-q", "-o", "Acquire::Retries=2", "-o", "DPkg::Lock::Timeout=120"];
  return spawnSync("apt-get", [...options, ...args], {
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    encoding: "utf8",
    timeout: 600_000,
  });
}

/** Installs what is missing of these lists of test-packages.json: `packages`, `lab`. */
export function installPackages(...names) {
  if (!existsSync("/etc/debian_version") || process.env["LIBSTORAGE_TEST_NO_APT"] === "1") return;
  const packages = Object.assign({}, ...names.map((name) => lists[name]));
  const missing = missingOf(packages);
  if (missing.length === 0) return;
  if (process.getuid?.() !== 0) {
    say(`not installed, and only root can: ${missing.join(", ")}`);
    return;
  }
  say(`apt-get install ${missing.join(" ")}`);
  const add = (some) => apt("install", "-y", "--no-install-recommends", ...some);
  apt("update");
  // One package that cannot be had must not keep the others away.
  if (add(missing).status !== 0) for (const name of missing) add([name]);
  for (const name of missingOf(packages))
    say(`could not be installed: ${name} (${packages[name]}); its tests are skipped`);
}
