// Sets everything up and runs the whole suite. `npm test [-- PART_OF_A_FILE_NAME…]`
import { availableParallelism } from "node:os";
import { installPackages } from "./debian-packages.mjs";
import { build, certificates, install, run, say, testFiles } from "./setup.mjs";

install();
installPackages("packages", ...(process.env["LIBSTORAGE_LAB"] === "0" ? [] : ["lab"]));
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
    // Most files wait for commands, daemons or machines more than they compute.
    `--test-concurrency=${Math.max(2, availableParallelism())}`,
    "--test-timeout=1800000",
    `--test-reporter=${reporter}`,
    "--test-reporter-destination=stdout",
    ...files,
  ]),
);
