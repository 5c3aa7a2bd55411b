/** Runs in a machine of the lab: a storage session that answers calls. Argument: its options. */
import type { Logger } from "@libstorage/server";
import { answerCalls } from "../lab/guest/answer-calls.js";
import { StorageSession } from "./storage-session.js";
import type { SessionOptions } from "./storage-session.js";

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
answerCalls(await StorageSession.open(options, { log }));
