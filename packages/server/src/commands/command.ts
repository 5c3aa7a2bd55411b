/** What a command of `libstorage-server` is: data, so that help and checks come from one place. */
import { parseArgs } from "node:util";
import type { ParseArgsConfig } from "node:util";
import { ConfigError } from "../config.js";
import { StorageError } from "@libstorage/model";

export const EXIT = { done: 0, failed: 1, misused: 2 } as const;

export type Options = NonNullable<ParseArgsConfig["options"]>;

export interface OptionSpec {
  readonly type: "string" | "boolean";
  readonly short?: string;
  readonly multiple?: boolean;
  /** What stands for the value in help. */
  readonly value?: string;
  readonly meaning: string;
}

export interface Command {
  readonly name: string;
  readonly summary: string;
  /** Arguments after the name, for help: `SUBJECT...` */
  readonly args?: string;
  readonly options: Readonly<Record<string, OptionSpec>>;
  /** More for help, a paragraph. */
  readonly details?: string;
  /** @returns the exit code */
  run(input: Input): Promise<number>;
}

export interface Input {
  readonly values: Readonly<
    Record<string, string | boolean | readonly (string | boolean)[] | undefined>
  >;
  readonly positionals: readonly string[];
  /** Values of configuration keys given as flags. */
  readonly flags: ReadonlyMap<string, string>;
  /** The result, for pipes. */
  readonly out: (text: string) => void;
  /** Everything else. */
  readonly err: (text: string) => void;
}

/** Wrong arguments: exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export function textOf(input: Input, name: string): string | undefined {
  const value = input.values[name];
  return typeof value === "string" ? value : undefined;
}

export function textsOf(input: Input, name: string): readonly string[] {
  const value = input.values[name];
  return Array.isArray(value) ? value.map(String) : [];
}

export function isSet(input: Input, name: string): boolean {
  return input.values[name] === true;
}

const COMMON: Readonly<Record<string, OptionSpec>> = {
  help: { type: "boolean", short: "h", meaning: "Shows this." },
};

function parseOptions(specs: Readonly<Record<string, OptionSpec>>): Options {
  return Object.fromEntries(
    Object.entries(specs).map(([name, { type, short, multiple }]) => [
      name,
      { type, ...(short !== undefined && { short }), ...(multiple === true && { multiple }) },
    ]),
  );
}

/** Runs a command with its arguments and turns every failure into text and exit code. */
export async function runCommand(
  command: Command,
  args: readonly string[],
  io: Pick<Input, "out" | "err" | "flags">,
): Promise<number> {
  try {
    const options = { ...command.options, ...COMMON };
    const { values, positionals } = parse(args, options);
    if (values["help"] === true) {
      io.out(helpOf(command));
      return EXIT.done;
    }
    if (positionals.length > 0 && command.args === undefined)
      throw new UsageError(`unexpected argument "${positionals[0]}"`);
    return await command.run({ ...io, values, positionals });
  } catch (error) {
    return report(error, command, io.err);
  }
}

function parse(
  args: readonly string[],
  specs: Readonly<Record<string, OptionSpec>>,
): Pick<Input, "values" | "positionals"> {
  try {
    return parseArgs({ args: [...args], options: parseOptions(specs), allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

/** What to do about a file or folder of the server itself that cannot be used. */
const STEPS: Readonly<Record<string, string>> = {
  EROFS:
    "its file system is read-only: mount it writable, or set LIBSTORAGE_HOME to another folder",
  EACCES:
    "this user may not do that: run as another user, or set LIBSTORAGE_HOME to another folder",
  EPERM: "this user may not do that: run as another user, or set LIBSTORAGE_HOME to another folder",
  ENOTDIR:
    "a part of the path is not a folder: remove it, or set LIBSTORAGE_HOME to another folder",
  ENOSPC: "its file system is full: free some space",
};

function systemProblem(error: Error): string | undefined {
  const { code = "", path, syscall } = error as NodeJS.ErrnoException;
  const step = STEPS[code];
  return path === undefined || step === undefined
    ? undefined
    : `cannot ${syscall} ${path}: ${step}`;
}

function report(error: unknown, command: Command, err: (text: string) => void): number {
  if (error instanceof UsageError) {
    err(`libstorage-server ${command.name}: ${error.message}`);
    err(`try: libstorage-server ${command.name} --help`);
    return EXIT.misused;
  }
  if (error instanceof ConfigError || error instanceof StorageError) err(error.message);
  else if (error instanceof Error) err(systemProblem(error) ?? error.stack ?? error.message);
  else err(String(error));
  return EXIT.failed;
}

function helpOf({ name, args, summary, details, options }: Command): string {
  const rows = Object.entries({ ...options, ...COMMON }).map(([option, spec]) => {
    const short = spec.short === undefined ? "    " : `-${spec.short}, `;
    const value = spec.type === "string" ? ` ${spec.value ?? "TEXT"}` : "";
    return [`  ${short}--${option}${value}`, spec.meaning] as const;
  });
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  return [
    `libstorage-server ${name}${args === undefined ? "" : ` ${args}`} [options]`,
    "",
    summary,
    ...(details === undefined ? [] : ["", details]),
    "",
    ...rows.map(([left, right]) => `${left.padEnd(width)}${right}`),
  ].join("\n");
}

/** Columns as wide as their widest cell. */
export function tableOf(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
