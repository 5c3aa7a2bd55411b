/** exportfs(8): arguments out, its table in. */
import { CommandError } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";
import { StorageError } from "@libstorage/model";
import { canonical } from "./subnets.js";

/** One client of one exported path. */
export interface Exported {
  readonly path: string;
  readonly client: string;
  readonly options: readonly string[];
}

/** Paths have what is no plain character as `\` and three octal digits. */
function unescaped(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_all, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** The output of `exportfs -s`: `PATH  CLIENT(OPTION,…)` a line. A path with spaces stands in quotes. */
export function parseExports(text: string): Exported[] {
  const found: Exported[] = [];
  for (const line of text.split("\n")) {
    const match = /^(?:"(.*)"|(\S+))\s+(\S*?)\((.*)\)\s*$/.exec(line);
    if (match === null) continue;
    const [, quoted, plain = "", client = "", options = ""] = match;
    found.push({
      path: unescaped(quoted ?? plain),
      client: client === "" || client === "<world>" ? "*" : (canonical(client) ?? client),
      options: options.split(","),
    });
  }
  return found;
}

/** The user that exportfs leaves out of what it shows. */
const NOBODY = "65534";

/** What exportfs shows in other words than it is given, or not at all when it is usual. */
function traitsOf(options: readonly string[]): string {
  const valueOf = (name: string): string =>
    options.find((one) => one.startsWith(`${name}=`))?.slice(name.length + 1) ?? NOBODY;
  const isRootKept = options.includes("no_root_squash");
  const squash = options.includes("all_squash") ? "all" : isRootKept ? "none" : "root";
  const isChecked = !options.includes("no_subtree_check");
  return [squash, isChecked, valueOf("anonuid"), valueOf("anongid")].join(",");
}

/** Whether an export with these options is the one that is shown, which has more words, such as `secure`. */
export function isShownAs(given: readonly string[], shown: readonly string[]): boolean {
  const others = given.filter((one) => !/squash|subtree_check|^anon[ug]id=/.test(one));
  return traitsOf(given) === traitsOf(shown) && others.every((one) => shown.includes(one));
}

/** The path and its client as one argument; an IPv6 address needs brackets. */
function argumentOf({ path, client }: Pick<Exported, "path" | "client">): string {
  return `${client.includes(":") ? `[${client}]` : client}:${path}`;
}

async function exportfs(context: OpContext, args: readonly string[]): Promise<string> {
  try {
    return (await context.exec("exportfs", args, context.signal)).stdout;
  } catch (error) {
    if (error instanceof CommandError && error.isMissing)
      throw new StorageError(
        "failed-precondition",
        `${error.message} (Debian: apt-get install nfs-kernel-server), or set "nfs.mode: ganesha"`,
        error.data,
        { cause: error },
      );
    throw error;
  }
}

export async function listExports(context: OpContext): Promise<Exported[]> {
  return parseExports(await exportfs(context, ["-s"]));
}

/**
 * Exports to several clients with the same options; what /etc/exports says is not read (`-i`). A path that cannot
 * be exported stays in the table all the same: whoever gets an error has to take it out.
 */
export async function addExports(
  context: OpContext,
  path: string,
  clients: readonly string[],
  options: readonly string[],
): Promise<void> {
  const targets = clients.map((client) => argumentOf({ path, client }));
  await exportfs(context, ["-i", "-o", options.join(","), ...targets]);
}

/** Takes exports out and makes the kernel forget them. Some that are gone already are fine. */
export async function removeExports(
  context: OpContext,
  gone: readonly Pick<Exported, "path" | "client">[],
): Promise<void> {
  if (gone.length === 0) return;
  try {
    await exportfs(context, ["-u", ...gone.map(argumentOf)]);
  } catch (error) {
    const others =
      error instanceof CommandError
        ? error.stderr
            .trim()
            .split("\n")
            .filter((line) => !/Could not find .* to unexport/.test(line))
        : [String(error)];
    if (others.length > 0) throw error;
  }
}

/** Makes the kernel ask anew who may have what. */
export async function flushExports(context: OpContext): Promise<void> {
  await exportfs(context, ["-f"]);
}
