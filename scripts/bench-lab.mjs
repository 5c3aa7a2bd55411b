// Measures in a machine of the lab what needs its kernel, and writes bench/result-lab.json. `npm run bench:lab [NAME…]`
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { installPackages } from "./debian-packages.mjs";
import { ROOT, build, fail, install, say } from "./setup.mjs";

/** Everything in the machine takes 6 to 30 times as long as outside. */
const LIMIT_MS = 45 * 60_000;

install();
installPackages("lab");
say("build");
build();

const { labMissing } = await import("../test/dist/lab/image.js");
const { startMachine } = await import("../test/dist/lab/machine.js");
const missing = labMissing();
if (missing !== false) fail(`the lab cannot run here: ${missing}`);

const names = process.argv.slice(2);
const machine = await startMachine({ name: "bench", diskMiB: [400_000, 20_000] });
let code = 1;
try {
  const words = names.map((name) => `'${name.replaceAll("'", "")}'`).join(" ");
  const run = machine.start(`exec node /project/bench/dist/lab/main.js /tmp/result.json ${words}`);
  run.onLine((line) => console.log(line));
  const timer = setTimeout(() => run.signal("SIGTERM"), LIMIT_MS);
  const ended = await run.ended.finally(() => clearTimeout(timer));
  code = ended.code ?? 1;
  if (code !== 0) console.error(ended.stderr.slice(-4000));
  const { stdout } = await machine.attempt("cat /tmp/result.json");
  if (names.length === 0 && stdout !== "")
    writeFileSync(join(ROOT, "bench/result-lab.json"), stdout);
} finally {
  await machine.remove();
}
process.exit(code);
