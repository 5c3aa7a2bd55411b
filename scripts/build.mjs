// Builds every package. `npm run build`
import { spawnSync } from "node:child_process";

const { status } = spawnSync("npx", ["--no-install", "tsc", "-b"], { stdio: "inherit" });
process.exit(status ?? 1);
