/** What this host's configuration says to the client: file, environment, flags, section 15 of the contract. */
import { existsSync, readFileSync, statSync } from "node:fs";
import { userInfo } from "node:os";
import {
  appFolders,
  ConfigTree,
  environmentLayer,
  expandTree,
  formatProblem,
  parseDuration,
  readTlsSettings,
  ScopedConfig,
  StorageError,
} from "@libstorage/model";
import type {
  AppFolders,
  ConfigLayer,
  ConfigProblem,
  Environment,
  TlsSettings,
} from "@libstorage/model";
import { readOperationSettings } from "./host/operation-settings.js";
import type { OperationSettings } from "./host/operation-settings.js";
import { SettingReader } from "./setting-reader.js";

/** Where a server of this project listens unless told otherwise. */
export const DEFAULT_SOCKET = "/var/run/libstorage/libstorage.sock";

export interface ClientSettings {
  readonly host: string;
  readonly service?: string;
  readonly type: "integration" | "controller";
  readonly token?: string;
  /** For TCP addresses; absent means no TLS. */
  readonly tls?: TlsSettings;
  readonly keepAlive: boolean;
  readonly responseTimeoutMs: number;
  /** How long a server's answer about this host's instance IDs is believed. */
  readonly instanceIDCacheMs: number;
  readonly attachTimeoutMs: number;
  readonly scan: "quick" | "deep";
  readonly operations: OperationSettings;
  readonly folders: AppFolders;
  /** For keys that belong to an executor. */
  readonly config: ScopedConfig;
}

export interface SettingsSource {
  readonly env: Environment;
  /** A configuration file that must exist. */
  readonly file?: string;
  /** Keys given on the command line, which win. */
  readonly flags?: Readonly<Record<string, string | undefined>>;
}

async function fileLayer(file: string, env: Environment): Promise<ConfigTree> {
  const problems: ConfigProblem[] = [];
  try {
    // Only a client that has a file pays for its parser.
    const { parse } = await import("yaml");
    const tree = new ConfigTree(
      expandTree(parse(readFileSync(file, "utf8")) as unknown, env, problems),
    );
    problems.push(...tree.problems);
    if (problems.length === 0) return tree;
  } catch (error) {
    throw new StorageError(
      "invalid-argument",
      `cannot read the configuration in ${file}: ${error instanceof Error ? error.message : String(error)}`,
      { file },
      { cause: error },
    );
  }
  throw wrong(problems, file);
}

/** What cannot be used, all of it. */
export function wrong(problems: readonly ConfigProblem[], file?: string): StorageError {
  const lines = problems.map((problem) => `\n  ${formatProblem(problem)}`).join("");
  return new StorageError(
    "invalid-argument",
    `the configuration${file === undefined ? "" : ` in ${file}`} cannot be used:${lines}`,
  );
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

function foldersOf(env: Environment): AppFolders {
  const user = userInfo();
  return appFolders(env, { isRoot: user.uid === 0, home: user.homedir }, isFolder);
}

/** `<etc>/config.yml`, then the user's own over it; or the one that was named. */
function filesOf(source: SettingsSource, folders: AppFolders): readonly string[] {
  const named = source.file ?? source.env["LIBSTORAGE_CONFIG"];
  if (named !== undefined && named !== "") return [named];
  return [folders.etc, folders.user]
    .filter((folder) => folder !== undefined)
    .map((folder) => `${folder}/config.yml`)
    .filter((file) => existsSync(file));
}

/** A token, or the path of a file that holds one. */
function tokenOf(reader: SettingReader): string | undefined {
  const given = reader.text("libstorage.client.auth.token", "auth.token");
  if (given === undefined || !existsSync(given)) return given;
  return readFileSync(given, "utf8").trim();
}

function hostOf(reader: SettingReader, bare: SettingReader, folders: AppFolders): string {
  const given = reader.text("rexray.host", "libstorage.host") ?? bare.text("host");
  if (given !== undefined && given !== "") return given;
  // A server of the same folders says there where it listens.
  const spec = `${folders.run}/${folders.token}.spec`;
  const written = existsSync(spec) ? readFileSync(spec, "utf8").trim() : "";
  return written === "" ? `unix://${DEFAULT_SOCKET}` : written;
}

/** All that this host's configuration says, before any key is read. */
export interface Configuration {
  readonly folders: AppFolders;
  readonly file: ConfigTree;
  readonly layers: readonly ConfigLayer[];
}

/** @throws {StorageError} `invalid-argument` for a file that cannot be read */
export async function loadConfiguration(source: SettingsSource): Promise<Configuration> {
  const folders = foldersOf(source.env);
  let file = new ConfigTree();
  for (const path of filesOf(source, folders)) file = file.merge(await fileLayer(path, source.env));
  const flags: ConfigLayer = new ConfigTree(
    Object.fromEntries(
      Object.entries(source.flags ?? {}).filter(([, value]) => value !== undefined),
    ),
  );
  return { folders, file, layers: [flags, environmentLayer(source.env), file] };
}

/** @throws {StorageError} `invalid-argument` with every problem that was found */
export async function loadSettings(source: SettingsSource): Promise<ClientSettings> {
  return readSettings(await loadConfiguration(source));
}

const SCOPES = ["rexray", "libstorage.client"];

/**
 * The settings as the client sees them, or one of its modules (section 20 of the contract), whose own
 * keys win.
 * @throws {StorageError} `invalid-argument` with every problem that was found
 */
export function readSettings({ folders, layers }: Configuration, module?: string): ClientSettings {
  const base = new ScopedConfig(layers, SCOPES);
  const config = module === undefined ? base : base.within(`modules.${module}`);
  const reader = new SettingReader(config);
  // What a module says of its type and host is about itself.
  const bare = new SettingReader(base);
  const { settings: tls, problems } = readTlsSettings(config, "client", {
    folder: folders.tls,
    token: folders.token,
    ...(folders.user !== undefined && { userKnownHosts: `${folders.user}/known_hosts` }),
    exists: existsSync,
  });
  const token = tokenOf(reader);
  const service = reader.text("rexray.service", "libstorage.service", "service");
  const settings: ClientSettings = {
    host: hostOf(reader, bare, folders),
    ...(service !== undefined && service !== "" && { service: service.toLowerCase() }),
    type: bare.choice(
      "integration",
      ["integration", "controller"],
      "libstorage.client.type",
      "type",
    ),
    ...(token !== undefined && token !== "" && { token }),
    ...(tls !== undefined && { tls }),
    keepAlive: !reader.flag(false, "libstorage.http.disableKeepAlive"),
    responseTimeoutMs: reader.count(90, "libstorage.http.readTimeout") * 1000,
    instanceIDCacheMs: reader.duration(
      30 * 60_000,
      "libstorage.client.cache.instanceID",
      "cache.instanceID",
    ),
    attachTimeoutMs: attachTimeout(reader),
    scan: reader.text("libstorage.device.scanType") === "1" ? "deep" : "quick",
    operations: readOperationSettings(reader, folders, module),
    folders,
    config,
  };
  const all = [...reader.problems, ...bare.problems, ...problems];
  if (all.length > 0) throw wrong(all);
  return settings;
}

/** A text that is no duration means the default, as in the reference. */
function attachTimeout(reader: SettingReader): number {
  return parseDuration(reader.text("libstorage.device.attachTimeout") ?? "") ?? 30_000;
}
