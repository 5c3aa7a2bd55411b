/** Help texts, made from the command objects. */
import { columns } from "./columns.js";
import { GLOBAL_OPTIONS } from "./command.js";
import type { Argument, Command, Option } from "./command.js";

function argumentText({ name, isOptional, isRepeated }: Argument): string {
  const text = `${name}${isRepeated === true ? "…" : ""}`;
  return isOptional === true ? `[${text}]` : text;
}

function optionRows(options: Readonly<Record<string, Option>>): string[][] {
  return Object.entries(options).map(([name, option]) => [
    `  ${option.short === undefined ? "   " : `-${option.short},`} --${name}${option.type === "string" ? ` ${option.value ?? "TEXT"}` : ""}`,
    option.about,
  ]);
}

export function commandHelp(name: string, command: Command): string {
  const usage = ["libstorage", name, ...command.args.map(argumentText), "[OPTIONS]"].join(" ");
  const parts = [`Usage: ${usage}\n\n${command.about}.`];
  const args = command.args.map((arg) => [
    `  ${arg.name}`,
    arg.choices === undefined ? arg.about : `${arg.about}: ${arg.choices.join(", ")}`,
  ]);
  if (args.length > 0) parts.push(`Arguments:\n${columns(args)}`);
  if (Object.keys(command.options).length > 0)
    parts.push(`Options:\n${columns(optionRows(command.options))}`);
  parts.push(`Everywhere:\n${columns(optionRows(GLOBAL_OPTIONS))}`);
  if (command.notes !== undefined) parts.push(command.notes.join("\n"));
  return `${parts.join("\n\n")}\n`;
}

export function overview(commands: readonly (readonly [name: string, command: Command])[]): string {
  const rows = commands.map(([name, { args, about }]) => [
    `  ${[name, ...args.map(argumentText)].join(" ")}`,
    about,
  ]);
  return [
    "Usage: libstorage COMMAND [ARGUMENTS] [OPTIONS]",
    `Commands:\n${columns(rows)}`,
    `Everywhere:\n${columns(optionRows(GLOBAL_OPTIONS))}`,
    'Volumes and snapshots are named by id or by their exact name.\nExit codes: 0 done, 1 failed, 2 misused. "libstorage COMMAND --help" tells more.',
  ]
    .join("\n\n")
    .concat("\n");
}
