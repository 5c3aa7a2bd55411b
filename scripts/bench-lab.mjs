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

const { alternate, figure, median } = await import("../bench/dist/measure.js");
const { openAttachTime } = await import("../test/dist/lab/attach-time.js");

/** Between two machines, so it is measured from outside. */
const ATTACH = "attach";
const ATTACH_ROUNDS = 5;

async function attachFigures() {
  console.log(`measuring ${ATTACH} …`);
  const time = await openAttachTime();
  try {
    const { ours, theirs, ratio } = await alternate(
      ATTACH_ROUNDS,
      () => time.ours(),
      () => time.theirs(),
    );
    console.log(
      `  attach until the device is ready: ours ${Math.round(median(ours))} ms, iscsiadm ${Math.round(median(theirs))} ms`,
    );
    const name = "attach until the device is ready, over iscsiadm by hand";
    return [figure(name, ratio, 1.5, "lower")];
  } finally {
    await time.end();
  }
}

async function figuresInside(names) {
  const machine = await startMachine({ name: "bench", diskMiB: [400_000, 20_000] });
  try {
    const words = names.map((name) => `'${name.replaceAll("'", "")}'`).join(" ");
    const run = machine.start(
      `exec node /project/bench/dist/lab/main.js /tmp/result.json ${words}`,
    );
    run.onLine((line) => console.log(line));
    const timer = setTimeout(() => run.signal("SIGTERM"), LIMIT_MS);
    const { code, stderr } = await run.ended.finally(() => clearTimeout(timer));
    if (code !== 0) console.error(stderr.slice(-4000));
    const { stdout } = await machine.attempt("cat /tmp/result.json");
    if (stdout === "") fail(`it ended with ${code} before it had measured all`);
    return JSON.parse(stdout);
  } finally {
    await machine.remove();
  }
}

const names = process.argv.slice(2);
const inside = names.filter((name) => name !== ATTACH);
const isAll = names.length === 0;
const figures = [
  ...(isAll || inside.length > 0 ? await figuresInside(inside) : []),
  ...(isAll || names.includes(ATTACH) ? await attachFigures() : []),
];
for (const { name, value, limit, ok } of figures)
  console.log(`${ok ? "ok    " : "MISSED"} ${name}: ${value}, limit ${limit}`);
if (isAll)
  writeFileSync(join(ROOT, "bench/result-lab.json"), `${JSON.stringify(figures, null, 2)}\n`);
process.exit(figures.every(({ ok }) => ok) ? 0 : 1);
