/** `libstorage-server`: configuration → application → listeners → stop on a signal. */
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { formatAddress } from "@libstorage/model";
import { openApp } from "../app.js";
import type { App } from "../app.js";
import { ConfigError, loadConfig, reloadConfig } from "../config.js";
import type { ConfigInput, ServerConfig } from "../config.js";
import { openFiles } from "../core/files.js";
import { DRIVERS } from "../drivers/index.js";
import { EXPORTERS } from "../exporters/index.js";
import { listenForQmp } from "../frontends/qmp/index.js";
import type { QmpSocket } from "../frontends/qmp/index.js";
import { openListeners } from "../listening/listeners.js";
import type { Listeners, OpenEndpoint } from "../listening/listeners.js";
import { openLog } from "../logging.js";
import type { ServerLog } from "../logging.js";
import { TlsMaterialError } from "../tls/material.js";
import { TlsWatcher } from "../tls/watcher.js";
import { VERSION } from "../version.js";
import { checkHost, configInput } from "./check.js";
import { EXIT, isSet } from "./command.js";
import type { Command, Input } from "./command.js";

/** How long running requests may go on after SIGTERM. */
const GRACE_MS = 20_000;

interface Running {
  config: ServerConfig;
  readonly serverLog: ServerLog;
  readonly app: App;
  readonly listeners: Listeners;
  readonly qmp: QmpSocket | undefined;
  readonly tls: TlsWatcher | undefined;
  /** Files that tell others where this server is. */
  readonly traces: readonly Trace[];
}

interface Trace {
  readonly path: string;
  readonly content: string;
}

/** An address as the client's configuration wants it. */
function dialOf({ address, isTls }: OpenEndpoint): string {
  if (address.kind === "unix") return formatAddress(address);
  const host = address.host === "" ? "127.0.0.1" : address.host;
  const text = formatAddress({ ...address, host });
  return isTls ? text.replace(/^tcp:/, "https:") : text;
}

async function start(config: ServerConfig): Promise<Running> {
  const serverLog = openLog(config.logging);
  const { log } = serverLog;
  const undo: (() => Promise<void> | void)[] = [];
  try {
    const isTls = config.endpoints.some((endpoint) => endpoint.isTls);
    const tls = isTls && config.tls !== undefined ? new TlsWatcher(config.tls, log) : undefined;
    undo.push(() => tls?.close());
    const app = await openApp(config, {
      log,
      certificates: () => tls?.certificates() ?? [],
      writeAccess: (text) => serverLog.writeLine(text),
    });
    undo.push(() => app.close());
    const qmp = app.qmp && config.qmp && (await listenForQmp(app.qmp, config.qmp.socket, log));
    undo.push(() => qmp?.close());
    const listeners = await openListeners({
      endpoints: config.endpoints,
      http: config.http,
      handler: app.handler,
      log,
      runFolder: config.folders.run,
      ...(tls !== undefined && { tls }),
    });
    undo.push(() => listeners.close(0));
    const traces = await leaveTraces(config, app, listeners);
    return { config, serverLog, app, listeners, qmp, tls, traces };
  } catch (error) {
    for (const step of undo.toReversed()) await step();
    serverLog.close();
    throw error;
  }
}

/**
 * Where clients of this host find the server without being told, and where its administrator finds the
 * token of `/help/config`. The token is in no log: standard output may well be one.
 */
async function leaveTraces(
  config: ServerConfig,
  app: App,
  { endpoints }: Listeners,
): Promise<readonly Trace[]> {
  const { run, token } = config.folders;
  await mkdir(run, { recursive: true, mode: 0o755 });
  const first = endpoints.find(({ address }) => address.kind === "unix") ?? endpoints[0];
  const traces = [
    { path: join(run, "admin-token"), content: `${app.adminToken}\n` },
    ...(first === undefined
      ? []
      : [{ path: join(run, `${token}.spec`), content: `${dialOf(first)}\n` }]),
  ];
  for (const { path, content } of traces)
    await openFiles().write(path, content, { mode: path.endsWith(".spec") ? 0o644 : 0o600 });
  return traces;
}

async function stop(running: Running, graceMs: number): Promise<void> {
  const { app, listeners, qmp, tls, traces, serverLog } = running;
  for (const { path, content } of traces) {
    // A server that was started later has put its own there.
    const there = await readFile(path, "utf8").catch(() => "");
    if (there === content) await rm(path, { force: true });
  }
  app.stop();
  await qmp?.close();
  await listeners.close(graceMs);
  await app.close();
  tls?.close();
  serverLog.log.info({}, "stopped");
  serverLog.close();
}

/** SIGHUP: what can change does; the rest is named. A configuration that is wrong changes nothing. */
async function reload(running: Running, input: ConfigInput): Promise<void> {
  const { app, listeners, serverLog, tls } = running;
  const { log } = serverLog;
  try {
    const next = loadConfig(DRIVERS, input, EXPORTERS);
    const { config, changed, needRestart } = reloadConfig(running.config, next);
    if (tls !== undefined && config.tls !== undefined) tls.use(config.tls);
    serverLog.reload(config.logging);
    await app.reload(config);
    listeners.reload(config.http);
    running.config = config;
    log.info({ changed }, "the configuration was read anew");
    if (needRestart.length > 0)
      log.warn(
        { needRestart },
        `these keys have changed, but only a restart applies them: ${needRestart.join(", ")}`,
      );
  } catch (error) {
    if (!(error instanceof ConfigError || error instanceof TlsMaterialError)) throw error;
    log.error(
      { problem: error.message },
      "the new configuration cannot be used; the old one stays",
    );
  }
}

function announce(running: Running, input: Input): void {
  const { config, app, listeners } = running;
  const endpoints = listeners.endpoints.map((endpoint) => ({
    name: endpoint.name,
    address: dialOf(endpoint),
  }));
  const tokenFile = running.traces[0]?.path;
  if (isSet(input, "json")) {
    const { serverName } = app;
    const services = config.services.map(({ name, driver }) => ({ name, driver }));
    input.out(
      JSON.stringify({
        serverName,
        pid: process.pid,
        version: VERSION,
        endpoints,
        services,
        tokenFile,
      }),
    );
    return;
  }
  input.out(
    [
      `libstorage-server ${VERSION}, ${app.serverName}, process ${process.pid}`,
      ...config.services.map(({ name, driver }) => `  service   ${name} (${driver})`),
      ...endpoints.map(({ name, address }) => `  endpoint  ${address} (${name})`),
      `  admin     token in ${tokenFile}`,
    ].join("\n"),
  );
}

/** Ctrl-C reaches a program under npm twice: from the terminal and from npm. */
const DOUBLE_MS = 1_000;

/** The signals of this process, heard from before anything is open, so that none finds it half open. */
class Signals {
  /** Resolves when one asks to stop; a second one does not wait. */
  readonly stop: Promise<void>;
  /** What SIGHUP does; until it is set, nothing. */
  onHangup: () => Promise<void> = async () => {};

  constructor() {
    this.stop = new Promise((resolve, reject) => {
      let askedAt: number | undefined;
      const ask = (): void => {
        if (askedAt !== undefined && Date.now() - askedAt > DOUBLE_MS) process.exit(EXIT.failed);
        askedAt ??= Date.now();
        resolve();
      };
      process.on("SIGTERM", ask);
      process.on("SIGINT", ask);
      let reloading: Promise<void> = Promise.resolve();
      process.on("SIGHUP", () => {
        reloading = reloading.then(() => this.onHangup()).catch(reject);
      });
    });
  }
}

async function run(input: Input): Promise<number> {
  if (isSet(input, "check")) return checkHost(input);
  const signals = new Signals();
  const source = configInput(input);
  const running = await start(loadConfig(DRIVERS, source, EXPORTERS));
  const { log } = running.serverLog;
  signals.onHangup = () => reload(running, source);
  announce(running, input);
  log.info({ version: VERSION, pid: process.pid }, "started");
  try {
    await signals.stop;
    log.info({}, "stopping");
  } finally {
    await stop(running, GRACE_MS);
  }
  return EXIT.done;
}

export const serve: Command = {
  name: "serve",
  summary: "Serves the configured services until SIGTERM or SIGINT. The default command.",
  details:
    "SIGHUP reads the configuration anew and opens log files anew; what needs a restart is named in the log.\nKeys of the configuration may be given as flags: --libstorageLoggingLevel=info",
  options: {
    config: { type: "string", short: "c", value: "FILE", meaning: "The configuration file." },
    check: { type: "boolean", meaning: 'The same as the command "check".' },
    json: { type: "boolean", meaning: "Says in JSON what was opened." },
  },
  run,
};
