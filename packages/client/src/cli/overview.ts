/** The list of all commands. */
import { COMMANDS } from "../commands/index.js";
import { overview } from "./help.js";

export async function printOverview(argv: readonly string[]): Promise<void> {
  const commands = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, load]) => [name, (await load()).command] as const),
  );
  // `help volume` lists the commands of that group.
  const group = argv.filter((word) => !word.startsWith("-") && word !== "help").join(" ");
  const wanted = commands.filter(([name]) => name === group || name.startsWith(`${group} `));
  process.stdout.write(overview(wanted.length > 0 ? wanted : commands));
}
