/** The composition root: a checked configuration becomes drivers, services, front-ends, one application. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { StorageError } from "@libstorage/model";
import type { CertificateHealth, Health, VolumeService } from "@libstorage/model";
import type { ServerConfig } from "./config.js";
import type { ExporterConfig, ServiceConfig } from "./config/server-config.js";
import type { DriverModule } from "./core/driver.js";
import type { ExporterModule } from "./core/exporter.js";
import type { FaultPlan } from "./core/faults.js";
import type { Logger } from "./core/log.js";
import { Storage } from "./core/storage.js";
import type { ExporterSpec, ServiceSpec } from "./core/storage.js";
import { DRIVERS } from "./drivers/index.js";
import { EXPORTERS } from "./exporters/index.js";
import { openContentCalls } from "./frontends/embedded/content.js";
import type { ContentCalls } from "./frontends/embedded/content.js";
import { openVolumeService } from "./frontends/embedded/volume-service.js";
import { eventOf } from "./frontends/embedded/wire.js";
import { Locations, hypervisorRecoveries } from "./frontends/hypervisor/index.js";
import { createRest, inventServerName, openAuth } from "./frontends/rest/index.js";
import type { AccessLog, Auth, EventFeed } from "./frontends/rest/index.js";
import { openFiles } from "./core/files.js";
import { serveNamed } from "./exporters/nbd/named-server.js";
import { Qmp } from "./frontends/qmp/index.js";
import { healthOf } from "./health.js";
import { VERSION } from "./version.js";

export interface AppOptions {
  readonly log: Logger;
  readonly drivers?: Readonly<Record<string, DriverModule>>;
  readonly exporters?: Readonly<Record<string, ExporterModule>>;
  /** What the listeners know of certificates. */
  readonly certificates?: () => readonly CertificateHealth[];
  /** Gets the lines of the access log, when `libstorage.logging` asks for one. */
  readonly writeAccess?: (text: string) => void;
  readonly executorsFolder?: string;
  readonly faults?: FaultPlan;
}

export interface App {
  /** Serves one HTTP request; any number of listeners may share it. */
  readonly handler: (req: IncomingMessage, res: ServerResponse) => void;
  /** The same operations without HTTP, for a program that embeds the server. */
  readonly service: VolumeService;
  /** Content of volumes as streams. */
  readonly content: ContentCalls;
  readonly storage: Storage;
  /** Resolves once what was cut short before the start has been recovered. */
  readonly ready: Promise<void>;
  /** Opens `/help/config` and `/help/env`; made anew at each start. */
  readonly adminToken: string;
  readonly serverName: string;
  /** Where it is configured. */
  readonly qmp: Qmp | undefined;
  health(): Health;
  /** Takes over what can change without a restart. */
  reload(config: ServerConfig): Promise<void>;
  /** Ends event streams, so that listeners can wait for all other requests before `close`. */
  stop(): void;
  close(): Promise<void>;
}

/** Where the build puts this project's own executor. */
const EXECUTORS = fileURLToPath(new URL("../../client/dist/executors", import.meta.url));

/** @throws {StorageError} when a service cannot be opened, or its folder belongs to another server */
export async function openApp(config: ServerConfig, options: AppOptions): Promise<App> {
  const { log } = options;
  const { drivers = DRIVERS, exporters = EXPORTERS } = options;
  for (const folder of [config.folders.lib, config.folders.run, config.journal.path])
    await mkdir(folder, { recursive: true, mode: 0o700 });
  const locations = new Locations(config.hypervisor.fileLocations);
  const storage = await Storage.open({
    services: config.services.map((service) => specOf(service, drivers, exporters)),
    journalFolder: config.journal.path,
    libFolder: config.folders.lib,
    retentionMs: config.journal.retentionMs,
    taskLogTimeoutMs: config.tasks.logTimeoutMs,
    hostRecoveries: hypervisorRecoveries(locations),
    log,
    ...(options.faults !== undefined && { faults: options.faults }),
  });
  const service = openVolumeService(storage, locations);
  const content = openContentCalls(storage);
  let isReady = false;
  const ready = storage.recovered().then(() => {
    isReady = true;
  });
  const health = (): Health => healthOf(storage, isReady, options.certificates?.() ?? []);
  const adminToken = randomUUID();
  const serverName = inventServerName();
  const stopping = new AbortController();
  const events = feedOf(storage);
  const qmp = await openQmp(config, service, events, options).catch(async (error: unknown) => {
    await storage.close();
    throw error;
  });
  const rest = (current: ServerConfig, auth: Auth): App["handler"] =>
    handlerOf({
      service,
      content,
      events,
      serverName,
      version: VERSION,
      adminToken,
      config: () => current.settings,
      env: () => process.env,
      health,
      auth,
      parseRequestOpts: current.parseRequestOpts,
      exeTimeoutMs: current.tasks.exeTimeoutMs,
      ...executorsOf(options),
      ...(qmp !== undefined && {
        talkQmp: (input, output, who) => qmp.talk(input, output, { who }),
      }),
      limits: { bodyBytes: current.http.bodyLimitBytes },
      log,
      ...accessLogOf(current, options),
      validateResponses: current.responseValidation,
      stopping: stopping.signal,
    });
  let serve = rest(config, await authOf(config));
  return {
    handler: (req, res) => serve(req, res),
    service,
    content,
    storage,
    ready,
    adminToken,
    serverName,
    qmp,
    health,
    reload: async (next) => {
      serve = rest(next, await authOf(next));
      storage.operations.tasks.logTimeoutMs = next.tasks.logTimeoutMs;
    },
    stop: () => stopping.abort(),
    close: async () => {
      stopping.abort();
      await qmp?.close();
      await storage.close();
    },
  };
}

function specOf(
  { name, driver, options, exporter, exports, shareable, uniqueNames }: ServiceConfig,
  drivers: Readonly<Record<string, DriverModule>>,
  exporters: Readonly<Record<string, ExporterModule>>,
): ServiceSpec {
  const module = drivers[driver];
  if (module === undefined)
    throw new StorageError(
      "invalid-argument",
      `service ${name}: there is no driver named ${driver}; there are ${Object.keys(drivers).join(", ")}`,
    );
  const exporterSpec = (wanted: ExporterConfig): ExporterSpec => {
    const found = exporters[wanted.name];
    if (found !== undefined) return { module: found, config: wanted.options };
    throw new StorageError(
      "invalid-argument",
      `service ${name}: there is no exporter named ${wanted.name}`,
    );
  };
  return {
    name,
    driver: module,
    config: options,
    ...(exporter !== undefined && { exporter: exporterSpec(exporter) }),
    exporters: exports.map(exporterSpec),
    settings: { shareable, uniqueNames },
  };
}

async function openQmp(
  { qmp, folders }: ServerConfig,
  service: VolumeService,
  events: EventFeed,
  { log, faults }: AppOptions,
): Promise<Qmp | undefined> {
  if (qmp === undefined) return undefined;
  const { socketFolder, insecure } = qmp;
  await mkdir(socketFolder, { recursive: true, mode: 0o700 });
  return Qmp.open({
    service,
    subscribe: (listener) => events.subscribe(listener),
    serveNbd: serveNamed,
    files: openFiles(faults),
    libFolder: folders.lib,
    socketFolder,
    isOpenAllowed: insecure,
    serverVersion: VERSION,
    log: log.child({ frontend: "qmp" }),
  });
}

function handlerOf(parts: Parameters<typeof createRest>[0]): App["handler"] {
  const serve = createRest(parts).callback();
  return (req, res) => {
    // Koa turns every failure into an answer, so its promise never rejects.
    void serve(req, res);
  };
}

function accessLogOf(
  { logging }: ServerConfig,
  { writeAccess }: AppOptions,
): { accessLog?: AccessLog } {
  const { httpRequests: requests, httpResponses: responses } = logging;
  if (writeAccess === undefined || !(requests || responses)) return {};
  return { accessLog: { requests, responses, write: writeAccess } };
}

function executorsOf({ executorsFolder = EXECUTORS }: AppOptions): { executorsFolder?: string } {
  return existsSync(executorsFolder) ? { executorsFolder } : {};
}

function feedOf({ operations: { events } }: Storage): EventFeed {
  return {
    *since(id) {
      for (const entry of events.since(id)) yield eventOf(entry);
    },
    subscribe: (listener) => events.subscribe((entry) => listener(eventOf(entry))),
    get lastID() {
      return events.lastID;
    },
  };
}

async function authOf({ auth, services }: ServerConfig): Promise<Auth> {
  return openAuth(
    auth,
    Object.fromEntries(services.map((service) => [service.name, service.auth])),
  );
}
