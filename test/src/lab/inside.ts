/** Suites that run inside a machine of the lab, for what needs its kernel. */
import { basename, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { ROOT } from "./image.js";
import { startMachine } from "./machine.js";
import type { MachineOptions } from "./machine.js";
import { Replay } from "./replay.js";

const INSIDE = "LIBSTORAGE_LAB_INSIDE";
/** Suites that choose some of many cases run all of them when this is 1. */
const FULL = "LIBSTORAGE_LAB_FULL";
/** Which part of the cases of a fault run; see docs/testing.md. */
const EVERY = "FAULTS_EVERY";
const REPORTER = "/project/test/dist/lab/events-reporter.js";

export interface InsideOptions extends Omit<MachineOptions, "name"> {
  /** For the whole, boot included. Default 600,000. */
  readonly limitMs?: number;
}

function passedOn(name: string): Record<string, string> {
  const value = process.env[name];
  return value === undefined ? {} : { [name]: value };
}

/**
 * Declares the tests of a file that runs in a machine of its own, as root, in the empty folder `/suite`. Seen from outside
 * the machine the file is one test that boots it, runs the file there, and shows each test as a part of itself.
 * @param url the file's `import.meta.url`
 */
export function insideOneMachine(url: string, options: InsideOptions, declare: () => void): void {
  if (process.env[INSIDE] === "1") {
    declare();
    return;
  }
  const file = fileURLToPath(url);
  const { limitMs = 600_000, ...machineOptions } = options;
  test(basename(file, ".lab.js"), { timeout: limitMs + 30_000 }, async (context) => {
    const end = Date.now() + limitMs;
    const machine = await startMachine({ name: "lab", ...machineOptions });
    try {
      const replay = new Replay(context);
      const inside = `/project/${relative(ROOT, file)}`;
      const suite = machine.start(
        `mkdir -p /suite && cd /suite && exec node --enable-source-maps --test-reporter=${REPORTER} --test-reporter-destination=stdout ${inside}`,
        { env: { [INSIDE]: "1", ...passedOn(FULL), ...passedOn(EVERY) } },
      );
      suite.onLine((line) => replay.line(line));
      const timer = setTimeout(() => suite.signal("SIGTERM"), end - Date.now());
      const { code, stderr } = await suite.ended.finally(() => clearTimeout(timer));
      await replay.finish(code, `${stderr}${machine.console.slice(-2000)}`);
    } finally {
      await machine.remove();
    }
  });
}
