/**
 * Runs in a machine of the lab: a storage session, driven by lines of JSON on standard input.
 * Argument: its options. In: `{ id, call, args }`. Out: `{ ready }`, then `{ id, value }` or `{ id, error }`.
 */
import { createInterface } from "node:readline";
import { StorageError } from "@libstorage/model";
import type { Logger } from "@libstorage/server";
import { StorageSession } from "./storage-session.js";
import type { SessionOptions } from "./storage-session.js";

interface Request {
  readonly id: number;
  readonly call: string;
  readonly args: readonly unknown[];
}

const say = (fields: object): void => void process.stdout.write(`${JSON.stringify(fields)}\n`);

const note = (level: string) => (fields: object, message: string) =>
  void process.stderr.write(`${level} ${message} ${JSON.stringify(fields)}\n`);
const log: Logger = {
  debug: () => {},
  info: note("info"),
  warn: note("warn"),
  error: note("error"),
  child: () => log,
};

const options = JSON.parse(process.argv[2] ?? "{}") as SessionOptions;
const session = await StorageSession.open(options, { log });
const calls = session as unknown as Record<string, (...args: readonly unknown[]) => unknown>;

async function carryOut({ id, call, args }: Request): Promise<void> {
  const started = performance.now();
  try {
    const value = await calls[call]?.(...args);
    say({ id, value, ms: performance.now() - started });
  } catch (error) {
    const { code, message } = error as StorageError;
    say({ id, error: { code: error instanceof StorageError ? code : "none", message } });
  }
}

createInterface({ input: process.stdin }).on("line", (line) => {
  void carryOut(JSON.parse(line) as Request);
});
say({ ready: true });
