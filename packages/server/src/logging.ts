/** The server's log: pino's lines of JSON, to standard error or to the files of `libstorage.logging`. */
import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { pino } from "pino";
import type { LoggingConfig, LogLevel } from "./config/server-config.js";
import type { Logger } from "./core/log.js";

const RANK: Readonly<Record<LogLevel, number>> = { debug: 20, info: 30, warn: 40, error: 50 };

/** Whatever else a caller logs by mistake, these members never get out. */
const SECRETS = ["token", "authorization", "password", "passphrase", "secret", "encryptionKey"];

/** A stream of the process or a file, which a rotated log opens anew. */
class Target {
  readonly #path: string | undefined;
  #fd: number;

  constructor(path: string | undefined) {
    this.#path = path;
    this.#fd = path === undefined ? 2 : openSync(path, "a", 0o640);
  }

  write(text: string): void {
    try {
      writeSync(this.#fd, text);
    } catch {
      // A full disk or a closed pipe must not stop the server; there is nowhere left to say so.
    }
  }

  close(): void {
    if (this.#path === undefined) return;
    fsyncSync(this.#fd);
    closeSync(this.#fd);
  }
}

interface Sinks {
  config: LoggingConfig;
  output: Target;
  errors: Target;
}

/** As much of pino's logger as is used; its own type carries the names of custom levels. */
interface Pino extends Omit<Logger, "child"> {
  child(fields: object): Pino;
}

/** Children share the level, so that a new one counts for all of them at once. */
class ServerLogger implements Logger {
  readonly #pino: Pino;
  readonly #sinks: Sinks;

  constructor(to: Pino, sinks: Sinks) {
    this.#pino = to;
    this.#sinks = sinks;
  }

  #wants(level: LogLevel): boolean {
    return RANK[level] >= RANK[this.#sinks.config.level];
  }

  debug(fields: object, message: string): void {
    if (this.#wants("debug")) this.#pino.debug(fields, message);
  }

  info(fields: object, message: string): void {
    if (this.#wants("info")) this.#pino.info(fields, message);
  }

  warn(fields: object, message: string): void {
    if (this.#wants("warn")) this.#pino.warn(fields, message);
  }

  error(fields: object, message: string): void {
    this.#pino.error(fields, message);
  }

  child(fields: object): Logger {
    return new ServerLogger(this.#pino.child(fields), this.#sinks);
  }
}

export interface ServerLog {
  readonly log: Logger;
  /** Whole lines beside the log: the access log. */
  writeLine(text: string): void;
  /** Takes over level and files, and opens files anew, which rotation needs. Keeps the old on an error. */
  reload(config: LoggingConfig): void;
  close(): void;
}

function openSinks(config: LoggingConfig): Sinks {
  return { config, output: new Target(config.stdout), errors: new Target(config.stderr) };
}

/** @throws an error of the file system when a log file cannot be opened */
export function openLog(config: LoggingConfig): ServerLog {
  const sinks = openSinks(config);
  const stream = pino.multistream(
    [
      { level: "debug", stream: { write: (text: string) => sinks.output.write(text) } },
      { level: "error", stream: { write: (text: string) => sinks.errors.write(text) } },
    ],
    { dedupe: true },
  );
  const root = pino(
    {
      level: "debug",
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
      redact: {
        paths: SECRETS.flatMap((name) => [name, `*.${name}`]),
        censor: "[redacted]",
      },
    },
    stream,
  );
  return {
    log: new ServerLogger(root, sinks),
    writeLine: (text) => sinks.output.write(`${text}\n`),
    reload: (next) => {
      const opened = openSinks(next);
      const old = { ...sinks };
      Object.assign(sinks, opened);
      old.output.close();
      old.errors.close();
    },
    close: () => {
      sinks.output.close();
      sinks.errors.close();
    },
  };
}
