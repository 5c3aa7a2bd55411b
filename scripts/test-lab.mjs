// Sets the lab up and runs its suites. `npm run test:lab [-- PART_OF_A_SUITE_NAME…]`
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { installPackages } from "./debian-packages.mjs";
import { ROOT, build, fail, install, run, say } from "./setup.mjs";

install();
installPackages("lab");
say("build");
build();

const { labImage, labMissing } = await import("../test/dist/lab/image.js");
const missing = labMissing();
if (missing !== false) fail(`the lab cannot run here: ${missing}`);
const folder = join(ROOT, "test/dist/lab");
const wanted = process.argv.slice(2);
const files = readdirSync(folder)
  .filter((name) => name.endsWith(".lab.js"))
  .filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
  .map((name) => join(folder, name));
if (files.length === 0) fail(`no suite of the lab has a name with ${wanted.join(" or ")}`);

say("the lab's image (the first time takes a minute or two)");
say(`it is ${await labImage()}`);
say(`${files.length} suites, one after another`);
const reporter = new URL("lab-reporter.mjs", import.meta.url).href;
process.exit(
  run(process.execPath, [
    "--enable-source-maps",
    "--test",
    "--test-concurrency=1",
    "--test-timeout=3600000",
    `--test-reporter=${reporter}`,
    "--test-reporter-destination=stdout",
    ...files,
  ]),
);
