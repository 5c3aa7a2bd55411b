/** The suites of the lab as parts of `npm test`. */
import { spawn } from "node:child_process";
import { basename } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { labMissing } from "./image.js";
import { Replay } from "./replay.js";

const REPORTER = fileURLToPath(new URL("events-reporter.js", import.meta.url));

/** With the time that the first one takes to build the image. `npm test` gives each file half an hour. */
const LIMIT_MS = 1_770_000;

async function runSuite(context: TestContext, file: string): Promise<void> {
  // A runner of its own: node:test does not start one below another.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const args = ["--enable-source-maps", `--test-reporter=${REPORTER}`];
  const node = [process.execPath, ...args, "--test-reporter-destination=stdout", file];
  const suite = spawn("setpriv", ["--pdeathsig", "TERM", ...node], {
    env,
    signal: context.signal,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stderr = "";
  suite.stderr.on("data", (text: Buffer) => (stderr = `${stderr}${text.toString()}`.slice(-8000)));
  const replay = new Replay(context);
  createInterface({ input: suite.stdout }).on("line", (line) => replay.line(line));
  const code = await new Promise<number | null>((resolve, reject) => {
    suite.once("error", reject);
    suite.once("close", resolve);
  });
  await replay.finish(code, stderr);
}

/**
 * Declares the suite `NAME.lab.js` as a test of `NAME.test.js`. `LIBSTORAGE_LAB=0` skips it, `1` makes it fail
 * where it cannot run; otherwise it is skipped there, with the reason. `all` runs the long ones, too.
 * @param url the test file's `import.meta.url`
 * @param isLong whether it takes more than a few minutes: `npm run test:lab` runs it always, `npm test` not
 */
export function wrapSuite(url: string, { isLong = false } = {}): void {
  const file = fileURLToPath(url).replace(/\.test\.js$/, ".lab.js");
  const name = basename(file, ".lab.js");
  const wish = process.env["LIBSTORAGE_LAB"];
  const tooLong =
    isLong && wish !== "all" && `it takes long: npm run test:lab -- ${name}, or LIBSTORAGE_LAB=all`;
  const missing = wish === "0" ? "LIBSTORAGE_LAB=0" : labMissing();
  const skip = tooLong || (wish !== "1" && missing);
  test(`lab: ${name}`, { skip, timeout: LIMIT_MS }, async (context) => {
    if (missing !== false) throw new Error(`the lab cannot run here: ${missing}`);
    await runSuite(context, file);
  });
}
