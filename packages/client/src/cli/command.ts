/** What a command of the command line is: data, from which parsing, help and completion are made. */
import type { Session } from "./session.js";

/** What a value stands for, so that completion can offer it. */
export type ValueKind = "volume" | "snapshot" | "service" | "task" | "file" | "folder" | "none";

export interface Option {
  readonly type: "string" | "boolean";
  readonly short?: string;
  readonly multiple?: boolean;
  /** How the value is called in the help. */
  readonly value?: string;
  readonly about: string;
  readonly completes?: ValueKind;
  readonly choices?: readonly string[];
}

export interface Argument {
  readonly name: string;
  readonly about: string;
  readonly isOptional?: boolean;
  readonly isRepeated?: boolean;
  readonly completes?: ValueKind;
  readonly choices?: readonly string[];
}

/** The values of the options that were given. */
export interface Given {
  readonly args: readonly string[];
  text(name: string): string | undefined;
  texts(name: string): readonly string[];
  flag(name: string): boolean;
}

export interface Command {
  readonly about: string;
  readonly args: readonly Argument[];
  readonly options: Readonly<Record<string, Option>>;
  /** Further lines of the help, such as examples. */
  readonly notes?: readonly string[];
  /** @throws {UsageError} exit 2; any other error is exit 1 */
  run(given: Given, session: Session): Promise<void>;
}

export const GLOBAL_OPTIONS = {
  host: {
    type: "string",
    value: "ADDRESS",
    about: "the server: unix:///PATH or tcp://HOST:PORT (or LIBSTORAGE_HOST)",
  },
  service: {
    type: "string",
    short: "s",
    value: "NAME",
    about: "the service to work with (or LIBSTORAGE_SERVICE)",
    completes: "service",
  },
  config: {
    type: "string",
    short: "c",
    value: "FILE",
    about: "the configuration file (or LIBSTORAGE_CONFIG)",
    completes: "file",
  },
  json: { type: "boolean", about: "print the API's objects as JSON" },
  help: { type: "boolean", short: "h", about: "show this help" },
} as const satisfies Record<string, Option>;
