/** The list of all commands. */
import { COMMANDS } from "../commands/index.js";
import { overview } from "./help.js";

export async function printOverview(_argv: readonly string[]): Promise<void> {
  const commands = await Promise.all(
    Object.entries(COMMANDS).map(async ([name, load]) => [name, (await load()).command] as const),
  );
  process.stdout.write(overview(commands));
}
