/** From the words of the command line to a command and its values. */
import { parseArgs } from "node:util";
import { GLOBAL_OPTIONS } from "./command.js";
import { UsageError } from "./usage-error.js";
import type { Argument, Command, Given, Option } from "./command.js";

export interface Words {
  /** The words that name the command: those before which only options stand. */
  readonly names: readonly string[];
  readonly rest: readonly string[];
}

function takesValue(word: string): boolean {
  if (word.includes("=")) return false;
  return Object.entries(GLOBAL_OPTIONS as Record<string, Option>).some(
    ([name, option]) =>
      option.type === "string" && (word === `--${name}` || word === `-${option.short}`),
  );
}

/** Where the command's own words stand; global options may stand before and between them. */
export function commandWords(argv: readonly string[], most: number): readonly number[] {
  const found: number[] = [];
  for (let at = 0; at < argv.length && found.length < most; at += 1) {
    const word = argv[at] ?? "";
    if (word === "--") break;
    if (!word.startsWith("-")) found.push(at);
    else if (takesValue(word)) at += 1;
  }
  return found;
}

function valueOf(values: Readonly<Record<string, unknown>>, name: string): unknown {
  return Object.hasOwn(values, name) ? values[name] : undefined;
}

/** @throws {UsageError} for options and arguments that the command does not have */
export function readArguments(command: Command, argv: readonly string[]): Given {
  const options: Record<string, Option> = { ...GLOBAL_OPTIONS, ...command.options };
  const specs = Object.fromEntries(
    Object.entries(options).map(([name, { type, short, multiple }]) => [
      name,
      { type, ...(short !== undefined && { short }), multiple: multiple ?? false },
    ]),
  );
  let parsed;
  try {
    parsed = parseArgs({ args: [...argv], options: specs, allowPositionals: true });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new UsageError(text.replace(/\. To specify.*$/, ""));
  }
  const values: Record<string, unknown> = parsed.values;
  if (valueOf(values, "help") !== true) checkCount(command.args, parsed.positionals);
  return {
    args: parsed.positionals,
    text: (name) => {
      const value = valueOf(values, name);
      return typeof value === "string" ? value : undefined;
    },
    texts: (name) => {
      const value = valueOf(values, name);
      return Array.isArray(value) ? value.map(String) : [];
    },
    flag: (name) => valueOf(values, name) === true,
  };
}

function checkCount(specs: readonly Argument[], given: readonly string[]): void {
  const missing = specs.slice(given.length).find((spec) => spec.isOptional !== true);
  if (missing !== undefined) throw new UsageError(`${missing.name} is missing: ${missing.about}`);
  const isOpen = specs.at(-1)?.isRepeated === true;
  if (!isOpen && given.length > specs.length)
    throw new UsageError(`"${given[specs.length]}" is one argument too many`);
  specs.forEach((spec, index) => {
    const value = given[index];
    if (value === "") throw new UsageError(`${spec.name} must not be empty`);
    if (value !== undefined && spec.choices !== undefined && !spec.choices.includes(value))
      throw new UsageError(`${spec.name} must be one of ${spec.choices.join(", ")}`);
  });
}
