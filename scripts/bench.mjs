// Builds and measures. `npm run bench [NAME…]`
import { spawnSync } from "node:child_process";

const run = (command, args) => spawnSync(command, args, { stdio: "inherit" }).status ?? 1;
const built = run("node", ["scripts/build.mjs"]);
process.exit(built === 0 ? run("node", ["bench/dist/main.js", ...process.argv.slice(2)]) : built);
