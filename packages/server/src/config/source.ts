/** Where the configuration comes from: files, the environment, flags; joined into layers. */
import { readFileSync, statSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { parseDocument } from "yaml";
import {
  ConfigTree,
  ScopedConfig,
  appFolders,
  environmentLayer,
  expandTree,
  flagOfKey,
} from "@libstorage/model";
import type { AppFolders, ConfigLayer, ConfigProblem, Environment } from "@libstorage/model";

/** What `loadConfig` reads. Everything has the process's own as its default, so that tests can stand in. */
export interface ConfigInput {
  /** The configuration file; without one the usual places are searched. */
  readonly file?: string;
  /** Text instead of a file, for embedding and for tests. */
  readonly text?: string;
  readonly env?: Environment;
  /** Values of long flags by key, in lower case. */
  readonly flags?: ReadonlyMap<string, string>;
  readonly isRoot?: boolean;
  readonly home?: string;
}

export interface ConfigSource {
  readonly folders: AppFolders;
  readonly files: readonly string[];
  /** What the files say. */
  readonly tree: ConfigTree;
  /** Everything, as the server sees it. */
  readonly server: ScopedConfig;
  readonly env: Environment;
  readonly problems: readonly ConfigProblem[];
}

const MAX_FILE_BYTES = 1024 * 1024;

function homeOfUser(): string | undefined {
  try {
    return userInfo().homedir;
  } catch {
    // A container's user may stand in no database.
    return homedir() || undefined;
  }
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}

/** The first file of each place; a later one counts more. */
function usualFiles(folders: AppFolders): readonly string[] {
  return [folders.etc, folders.user]
    .filter((folder) => folder !== undefined)
    .map((folder) => ["config.yml", "config.yaml"].map((name) => `${folder}/${name}`).find(isFile))
    .filter((file) => file !== undefined);
}

function parseText(
  text: string,
  name: string,
  env: Environment,
  problems: ConfigProblem[],
): ConfigTree {
  const document = parseDocument(text, { prettyErrors: true });
  for (const error of [...document.errors, ...document.warnings])
    problems.push({ path: name, message: error.message.replace(/:?\s*\n[\s\S]*$/, "") });
  if (document.errors.length > 0) return new ConfigTree();
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    problems.push({ path: name, message: error instanceof Error ? error.message : String(error) });
    return new ConfigTree();
  }
  const tree = new ConfigTree(expandTree(value, env, problems));
  problems.push(...tree.problems.map((one) => (one.path === "" ? { ...one, path: name } : one)));
  return tree;
}

function readTree(path: string, env: Environment, problems: ConfigProblem[]): ConfigTree {
  try {
    if (statSync(path).size > MAX_FILE_BYTES) {
      problems.push({ path, message: "is larger than 1 MiB, which no configuration is" });
      return new ConfigTree();
    }
    return parseText(readFileSync(path, "utf8"), path, env, problems);
  } catch (error) {
    problems.push({ path, message: `cannot be read: ${reasonOf(error)}` });
    return new ConfigTree();
  }
}

/** Why the system refused a file, in words. */
export function reasonOf(error: unknown): string {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  if (code === "ENOENT") return "there is no such file";
  if (code === "EACCES" || code === "EPERM") return "this user may not read it";
  if (code === "EISDIR") return "it is a folder";
  return error instanceof Error ? error.message : String(error);
}

export function flagLayer(flags: ReadonlyMap<string, string>): ConfigLayer {
  return {
    find(path) {
      const value = flags.get(path);
      return value === undefined ? undefined : { path: `--${flagOfKey(path)}`, value };
    },
  };
}

/** Reads files and environment. What cannot be read is a problem, not an exception. */
export function openSource(input: ConfigInput = {}): ConfigSource {
  const env = input.env ?? process.env;
  const home = input.home ?? homeOfUser();
  const isRoot = input.isRoot ?? process.getuid?.() === 0;
  const folders = appFolders(env, { isRoot, ...(home !== undefined && { home }) }, isFolder);
  const problems: ConfigProblem[] = [];
  let files: readonly string[] = [];
  let tree = new ConfigTree();
  if (input.text !== undefined) tree = parseText(input.text, "configuration", env, problems);
  else {
    files = input.file === undefined ? usualFiles(folders) : [input.file];
    for (const file of files) tree = tree.merge(readTree(file, env, problems));
  }
  const layers = [flagLayer(input.flags ?? new Map()), environmentLayer(env), tree];
  const scopes = [...new Set(["rexray", folders.token])].filter((scope) => scope !== "libstorage");
  return {
    folders,
    files,
    tree,
    server: new ScopedConfig(layers, [...scopes, "libstorage.server"]),
    env,
    problems,
  };
}
