/** The command line of the server. Only wires: each command is a file of `commands/`. */
import { check } from "./commands/check.js";
import { EXIT, runCommand } from "./commands/command.js";
import type { Command } from "./commands/command.js";
import { takeConfigFlags } from "./commands/config-flags.js";
import { serve } from "./commands/serve.js";
import { tls } from "./commands/tls.js";
import { token } from "./commands/token.js";
import { VERSION } from "./version.js";

const COMMANDS: readonly Command[] = [serve, check, tls, token];

function help(): string {
  const width = Math.max(...COMMANDS.map(({ name }) => name.length)) + 2;
  return [
    "libstorage-server [command] [options]",
    "",
    "A storage service that speaks libStorage.",
    "",
    ...COMMANDS.map(({ name, summary }) => `  ${name.padEnd(width)}${summary}`),
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
    const command = COMMANDS.find(({ name }) => name === rest[1]);
    if (command !== undefined) return runCommand(command, ["--help"], { out, err, flags });
    out(help());
    return EXIT.done;
  }
  if (first === "version" || first === "--version") {
    out(VERSION);
    return EXIT.done;
  }
  const command = COMMANDS.find(({ name }) => name === first);
  if (command !== undefined) return runCommand(command, rest.slice(1), { out, err, flags });
  if (first === "" || first.startsWith("-")) return runCommand(serve, rest, { out, err, flags });
  err(`libstorage-server: there is no command "${first}"`);
  err("try: libstorage-server --help");
  return EXIT.misused;
}
