/** The hidden command behind the completion scripts. It never fails: no answer is an answer. */
import { COMMANDS } from "../commands/index.js";
import { commandWords, readArguments } from "./arguments.js";
import { candidateLines, candidates } from "./completion.js";
import type { Command, ValueKind } from "./command.js";
import type { Session } from "./session.js";

const TIME_LIMIT_MS = 2_000;

async function commandOf(words: readonly string[]): Promise<Command | undefined> {
  const before = words.slice(0, -1);
  const names = commandWords(before, 2).map((index) => before[index] ?? "");
  for (const count of [2, 1]) {
    const name = names.slice(0, count).join(" ");
    const load = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
    if (load !== undefined) return (await load()).command;
  }
  return undefined;
}

/** Ids and names that are unique among them. */
async function namesOf(kind: ValueKind, session: Session): Promise<readonly string[]> {
  const client = await session.client();
  const context = { signal: AbortSignal.timeout(TIME_LIMIT_MS) };
  switch (kind) {
    case "service":
      return Object.keys(await client.services({}, undefined, context));
    case "task":
      return Object.keys(await client.tasks({}, undefined, context));
    case "volume": {
      const all = Object.values(await client.volumes({}, undefined, context));
      return all.flatMap((map) => Object.values(map).flatMap(({ id, name }) => [name, id]));
    }
    case "snapshot": {
      const all = Object.values(await client.snapshots({}, undefined, context));
      return all.flatMap((map) => Object.values(map).flatMap(({ id, name = "" }) => [name, id]));
    }
    case "file":
    case "folder":
    case "none":
      return [];
    default:
      return kind satisfies never;
  }
}

/** @param words of the command line, the last one being typed */
export async function complete(words: readonly string[], session: Session): Promise<string> {
  const command = await commandOf(words);
  const { words: fixed, kind } = candidates(words, Object.keys(COMMANDS), command);
  if (kind === "file" || kind === "folder") return `:${kind}\n`;
  if (kind === "none") return candidateLines(fixed);
  // The server and service that the line names so far.
  const empty: Command = { about: "", args: [], options: {}, run: async () => {} };
  const globals = words.filter((word) => /^--(?:host|service|config)=/.test(word));
  session.begin(readArguments(empty, globals));
  return candidateLines([...fixed, ...(await namesOf(kind, session).catch(() => []))]);
}
