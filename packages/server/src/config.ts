/** YAML files, environment and flags → a checked `ServerConfig`, or every problem at once. */
import { formatProblem } from "@libstorage/model";
import type { ConfigProblem } from "@libstorage/model";
import { readGlobalAuth } from "./config/auth.js";
import { Checker, required } from "./config/check.js";
import { readListening } from "./config/endpoints.js";
import { KEYS } from "./config/keys.js";
import type { KeySpec } from "./config/keys.js";
import { shownSettings } from "./config/redact.js";
import type { QmpConfig, ServerConfig } from "./config/server-config.js";
import { readServices } from "./config/services.js";
import type { DriverTable, Modules } from "./config/services.js";
import { openSource } from "./config/source.js";
import type { ConfigInput, ConfigSource } from "./config/source.js";
import { refuseUnknownKeys } from "./config/unknown-keys.js";

export type { ConfigInput } from "./config/source.js";
export type { DriverTable } from "./config/services.js";
export * from "./config/server-config.js";
export { reloadConfig } from "./config/reload.js";
export type { Reload } from "./config/reload.js";

/** A configuration that cannot be used. The message lists every problem, one a line. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[], sources: readonly string[]) {
    const from = sources.length === 0 ? "" : ` in ${sources.join(", ")}`;
    const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
    super([`${count}${from}:`, ...problems.map((one) => `  ${formatProblem(one)}`)].join("\n"));
    this.problems = problems;
  }
}

/**
 * Reads and checks everything; opens no port, starts no command.
 * @param drivers the table whose modules check their own blocks
 * @param exporters the same for exporters
 * @throws {ConfigError} with all problems
 */
export function loadConfig(
  drivers: DriverTable,
  input: ConfigInput = {},
  exporters: Modules["exporters"] = {},
): ServerConfig {
  const modules = { drivers, exporters };
  const source = openSource(input);
  const check = new Checker();
  check.problems.push(...source.problems);
  const config = readConfig(source, modules, check);
  // A file that could not be read, or is no YAML, would only be followed by problems that it solves.
  if (source.problems.length === 0 || source.tree.leaves().length > 0)
    refuseUnknownKeys(source, modules, check);
  const problems =
    source.tree.leaves().length > 0 || source.problems.length === 0
      ? distinct(check.problems)
      : source.problems;
  if (problems.length > 0) throw new ConfigError(problems, source.files);
  return config;
}

function distinct(problems: readonly ConfigProblem[]): readonly ConfigProblem[] {
  return [...new Map(problems.map((one) => [formatProblem(one), one])).values()];
}

function qmpOf({ server, folders }: ConfigSource, check: Checker): { qmp?: QmpConfig } {
  const socket = check.read(KEYS.qmpSocket, server);
  const socketFolder = check.read(KEYS.qmpSocketFolder, server) ?? `${folders.run}/qmp`;
  const insecure = check.read(KEYS.qmpInsecure, server) ?? false;
  return socket === undefined ? {} : { qmp: { socket, socketFolder, insecure } };
}

function readConfig(source: ConfigSource, modules: Modules, check: Checker): ServerConfig {
  const { server } = source;
  const read = <T>(spec: KeySpec<T>): T => required(check.read(spec, server), spec);
  const { endpoints, tls, insecure } = readListening(source, check);
  const auth = readGlobalAuth(server, check);
  const level = read(KEYS.logLevel);
  const stdout = check.read(KEYS.logStdout, server);
  const stderr = check.read(KEYS.logStderr, server);
  return {
    folders: source.folders,
    sources: source.files,
    endpoints,
    ...(tls !== undefined && { tls }),
    insecure,
    services: readServices(source, modules, check),
    ...(auth !== undefined && { auth }),
    tasks: { exeTimeoutMs: read(KEYS.exeTimeout), logTimeoutMs: read(KEYS.logTimeout) },
    parseRequestOpts: read(KEYS.parseRequestOpts),
    responseValidation: read(KEYS.responseValidation),
    logging: {
      level,
      ...(stdout !== undefined && { stdout }),
      ...(stderr !== undefined && { stderr }),
      httpRequests: read(KEYS.httpRequests),
      httpResponses: read(KEYS.httpResponses),
    },
    journal: {
      path: check.read(KEYS.journalPath, server) ?? `${source.folders.lib}/journal`,
      retentionMs: read(KEYS.journalRetention),
    },
    http: {
      bodyLimitBytes: read(KEYS.bodyLimit),
      maxConnections: read(KEYS.maxConnections),
      headersTimeoutMs: read(KEYS.headersTimeout),
      requestTimeoutMs: read(KEYS.requestTimeout),
      keepAliveTimeoutMs: read(KEYS.keepAliveTimeout),
    },
    ...qmpOf(source, check),
    hypervisor: { fileLocations: check.read(KEYS.fileLocations, server) ?? [] },
    settings: shownSettings(source.tree.toObject()),
  };
}
