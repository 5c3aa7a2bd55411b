// Builds every package. `npm run build`
import { spawnSync } from "node:child_process";
import { buildClient } from "../packages/client/build.mjs";

const { status } = spawnSync("npx", ["--no-install", "tsc", "-b"], { stdio: "inherit" });
if (status === 0) await buildClient();
process.exitCode = status ?? 1;
