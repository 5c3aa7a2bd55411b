/** The command line `libstorage`: words → command → exit code. 0 done, 1 failed, 2 misused. */
import { commandWords, readArguments } from "./cli/arguments.js";
import { UsageError } from "./cli/usage-error.js";
import type { Command } from "./cli/command.js";
import { Session } from "./cli/session.js";
import { COMMANDS } from "./commands/index.js";

const USAGE_EXIT = 2;

interface Chosen {
  readonly name: string;
  readonly command: Command;
  /** The words that are left. */
  readonly rest: readonly string[];
}

/** The longest name of a command that the first words make. */
async function choose(argv: readonly string[]): Promise<Chosen | undefined> {
  const at = commandWords(argv, 2);
  for (const count of [2, 1]) {
    const used = at.slice(0, count);
    const name = used.map((index) => argv[index]).join(" ");
    const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
    if (used.length === count && load !== undefined) {
      const { command } = await load();
      return { name, command, rest: argv.filter((_word, index) => !used.includes(index)) };
    }
  }
  return undefined;
}

async function unknown(argv: readonly string[]): Promise<string> {
  const words = commandWords(argv, 2).map((index) => argv[index] ?? "");
  const [group = ""] = words;
  const names = Object.keys(COMMANDS).filter((name) => name.startsWith(`${group} `));
  if (names.length > 0) return `"${words.join(" ")}" is no command; there are ${names.join(", ")}`;
  return `"${words.join(" ")}" is no command; "libstorage --help" lists them`;
}

async function wantsOverview(argv: readonly string[]): Promise<boolean> {
  const words = commandWords(argv, 1);
  return words.length === 0 || argv[words[0] ?? 0] === "help";
}

async function runCommand(argv: readonly string[], session: Session): Promise<void> {
  if (await wantsOverview(argv)) {
    const { printOverview } = await import("./cli/overview.js");
    await printOverview(argv);
    return;
  }
  if (argv[0] === "__complete") {
    const { complete } = await import("./cli/complete.js");
    const words = argv.slice(argv[1] === "--" ? 2 : 1);
    process.stdout.write(await complete(words, session).catch(() => ""));
    return;
  }
  const chosen = await choose(argv);
  if (chosen === undefined) throw new UsageError(await unknown(argv));
  const { name, command, rest } = chosen;
  const given = readArguments(command, rest);
  session.begin(given);
  if (given.flag("help")) {
    const { commandHelp } = await import("./cli/help.js");
    process.stdout.write(commandHelp(name, command));
    return;
  }
  await command.run(given, session);
}

/** Runs one command line. @returns the exit code */
export async function main(argv: readonly string[]): Promise<number> {
  const ending = new AbortController();
  const end = (): void => ending.abort();
  // A second signal ends the process as if nobody listened.
  process.once("SIGINT", end);
  process.once("SIGTERM", end);
  // Whoever reads the output may have had enough of it.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
  });
  const session = new Session(process.env, process, ending.signal);
  try {
    await runCommand(argv, session);
    return 0;
  } catch (error) {
    session.fail(error);
    if (!(error instanceof UsageError)) return 1;
    if (commandWords(argv, 1).length > 0)
      process.stderr.write('"libstorage --help" and "libstorage COMMAND --help" tell more.\n');
    return USAGE_EXIT;
  } finally {
    session.close();
    process.off("SIGINT", end);
    process.off("SIGTERM", end);
  }
}
