/** The command line of the server. Only wires: each command is a file of `commands/`. */
import { EXIT, runCommand } from "./commands/command.js";
import type { Command } from "./commands/command.js";
import { takeConfigFlags } from "./commands/config-flags.js";
import { VERSION } from "./version.js";

/** Loaded when asked for: a server that starts needs no code that makes certificates. */
const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  serve: async () => (await import("./commands/serve.js")).serve,
  check: async () => (await import("./commands/check.js")).check,
  tls: async () => (await import("./commands/tls.js")).tls,
  token: async () => (await import("./commands/token.js")).token,
};

async function commandNamed(name: string | undefined): Promise<Command | undefined> {
  return name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name]?.() : undefined;
}

async function help(): Promise<string> {
  const commands = await Promise.all(Object.values(COMMANDS).map((load) => load()));
  const width = Math.max(...commands.map(({ name }) => name.length)) + 2;
  return [
    "libstorage-server [command] [options]",
    "",
    "A storage service that speaks libStorage.",
    "",
    ...commands.map(({ name, summary }) => `  ${name.padEnd(width)}${summary}`),
    "",
    "  -c, --config FILE  the configuration (serve, check)",
    "      --check        the same as check",
    "      --version      shows the version",
    "  -h, --help         shows this; COMMAND --help shows the command's options",
    "",
    "Exit codes: 0 done, 1 failed, 2 misused.",
  ].join("\n");
}

/** @returns the exit code */
export async function main(args: readonly string[]): Promise<number> {
  const out = (text: string): void => void process.stdout.write(`${text}\n`);
  const err = (text: string): void => void process.stderr.write(`${text}\n`);
  const { flags, rest } = takeConfigFlags(args);
  const [first = ""] = rest;
  if (first === "help" || first === "--help" || first === "-h") {
    const command = await commandNamed(rest[1]);
    if (command !== undefined) return runCommand(command, ["--help"], { out, err, flags });
    out(await help());
    return EXIT.done;
  }
  if (first === "version" || first === "--version") {
    out(VERSION);
    return EXIT.done;
  }
  const command = await commandNamed(first);
  if (command !== undefined) return runCommand(command, rest.slice(1), { out, err, flags });
  if (first === "" || first.startsWith("-")) {
    const { serve } = await import("./commands/serve.js");
    return runCommand(serve, rest, { out, err, flags });
  }
  err(`libstorage-server: there is no command "${first}"`);
  err("try: libstorage-server --help");
  return EXIT.misused;
}
