// Builds every package, then joins what is started often into a few files. `npm run build`
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const run = (command, args) => {
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
};

run("npx", ["--no-install", "tsc", "-b"]);
for (const bundle of ["packages/server/build.mjs", "packages/client/build.mjs"])
  if (existsSync(bundle)) run(process.execPath, [bundle]);
