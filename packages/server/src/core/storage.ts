/** All services of one server, over one journal. */
import { StorageError, notFound } from "@libstorage/model";
import type { FileHandle } from "node:fs/promises";
import type { DriverModule, OpContext, StorageDriver } from "./driver.js";
import type { FaultPlan } from "./faults.js";
import { openFiles } from "./files.js";
import { openShared } from "./exporter.js";
import type { Exporter, ExporterModule } from "./exporter.js";
import { openExec } from "./exec.js";
import { lockFolder } from "./folder-lock.js";
import { openJournal } from "./journal-store.js";
import type { OpenedJournal } from "./journal-store.js";
import type { JournalEntry } from "./journal-entry.js";
import type { Journal } from "./journal.js";
import { Operations, stored } from "./operations.js";
import type { Logger } from "./log.js";
import { abandon, recover } from "./recovery.js";
import type { HostRecoveries } from "./recovery.js";
import { StorageService } from "./service.js";
import type { ServiceSettings } from "./service.js";

export interface ExporterSpec {
  readonly module: ExporterModule;
  /** Its block, checked. */
  readonly config: unknown;
}

export interface ServiceSpec {
  /** In lower case. */
  readonly name: string;
  readonly driver: DriverModule;
  /** The driver's block, checked. */
  readonly config: unknown;
  /** How other hosts get the volumes, with its block, checked. */
  readonly exporter?: ExporterSpec;
  /** Through which volumes are served on this host, beside that one. */
  readonly exporters?: readonly ExporterSpec[];
  readonly settings: ServiceSettings;
}

export interface StorageOptions {
  readonly services: readonly ServiceSpec[];
  /** Where the journal lives. */
  readonly journalFolder: string;
  readonly libFolder: string;
  readonly retentionMs?: number;
  /** How long a finished task that someone waited for is still listed. Default 0. */
  readonly taskLogTimeoutMs?: number;
  /** For operations about files of this host. */
  readonly hostRecoveries?: HostRecoveries;
  readonly log: Logger;
  readonly faults?: FaultPlan;
}

/** Recovery that failed is tried again so often; old entries are dropped so often. */
const RETRY_MS = 60_000;
const PRUNE_MS = 3_600_000;

export class Storage {
  readonly services: ReadonlyMap<string, StorageService>;
  readonly operations: Operations;
  /** What was wrong at the start. */
  readonly #warnings: string[];
  readonly #release: () => Promise<void>;
  readonly #log: Logger;
  readonly #timers: NodeJS.Timeout[] = [];
  #recovering: Promise<void> = Promise.resolve();
  #housekeeping: Promise<unknown> = Promise.resolve();

  private constructor(
    services: ReadonlyMap<string, StorageService>,
    operations: Operations,
    warnings: string[],
    release: () => Promise<void>,
    log: Logger,
  ) {
    this.services = services;
    this.operations = operations;
    this.#warnings = warnings;
    this.#release = release;
    this.#log = log;
  }

  /**
   * Opens the journal and every driver, lists every service, and begins to recover what was cut short;
   * only the volumes concerned wait for that.
   * @throws {StorageError} when a driver cannot be opened, or its folder belongs to another server
   */
  static async open(options: StorageOptions): Promise<Storage> {
    const { log, faults } = options;
    const context: OpContext = {
      signal: AbortSignal.timeout(600_000),
      log,
      exec: openExec({ log, ...(faults !== undefined && { faults }) }),
      files: openFiles(faults),
      progress: () => {},
    };
    const cleanup: (() => Promise<unknown>)[] = [];
    // The journal is checked by another process while this one lists the volumes.
    const opening = handled(openOwnJournal(options, context, cleanup));
    try {
      const locks: FileHandle[] = [];
      const backends: Backend[] = [];
      for (const spec of options.services)
        backends.push(await openBackend(spec, options, context, cleanup, locks));
      const listings = backends.map(({ driver }) => handled(driver.list(context)));
      const { journal, isIncomplete, lock, close, ...opened } = await opening;
      const warnings = [...opened.warnings];
      const operations = new Operations(journal, {
        log,
        ...(faults !== undefined && { faults }),
        logTimeoutMs: options.taskLogTimeoutMs ?? 0,
      });
      const services = new Map<string, StorageService>();
      for (const [index, { name, driver: module, settings }] of options.services.entries()) {
        const [backend, listing] = [backends[index], listings[index]];
        if (backend === undefined || listing === undefined) continue;
        const parts = { name, driverName: module.name, ...backend, settings, operations, log };
        const service = new StorageService(parts);
        service.inventory.load(await listing);
        // Before anyone may change who holds what.
        warnings.push(...(await service.exports.restore(context)));
        services.set(name, service);
      }
      const storage = new Storage(
        services,
        operations,
        warnings,
        async () => {
          await close();
          for (const held of [lock, ...locks]) await held.close();
        },
        log,
      );
      for (const warning of storage.warnings) log.warn({}, warning);
      storage.#begin(isIncomplete, options.hostRecoveries ?? {});
      return storage;
    } catch (error) {
      await opening.catch(() => {});
      for (const undo of cleanup.toReversed()) await undo().catch(() => {});
      throw error;
    }
  }

  /** What was wrong at the start, and what is now, for health. */
  get warnings(): readonly string[] {
    const services = [...this.services.values()];
    return [...this.#warnings, ...services.flatMap(({ exports }) => exports.warnings)];
  }

  get journal(): Journal {
    return this.operations.journal;
  }

  /** @throws {StorageError} `not-found` */
  service(name: string): StorageService {
    const service = this.services.get(name.toLowerCase());
    if (service === undefined) throw notFound("service", name);
    return service;
  }

  #begin(isJournalIncomplete: boolean, host: HostRecoveries): void {
    const { stuck } = this.operations;
    const intents = this.journal.openIntents();
    if (intents.length > 0)
      this.#recovering = this.#recover(intents, isJournalIncomplete, host).catch((error: unknown) =>
        this.#log.error({ error: stored(error) }, "recovery failed"),
      );
    this.#every(RETRY_MS, "clearing up failed", () => stuck.finishAll());
    this.#every(PRUNE_MS, "prune failed", () => this.journal.prune());
  }

  async #recover(
    intents: readonly JournalEntry[],
    isJournalIncomplete: boolean,
    host: HostRecoveries,
  ): Promise<void> {
    const { services, operations } = this;
    const log = this.#log;
    const options = { services, operations, host, log };
    const isLost = ({ service }: JournalEntry): boolean =>
      isJournalIncomplete || services.get(service)?.inventory.isJournalBehind === true;
    const isKnown = ({ service }: JournalEntry): boolean => service === "" || services.has(service);
    const waiting = new Set(
      intents.filter((intent) => !isKnown(intent)).map(({ service }) => service),
    );
    for (const name of waiting)
      this.#warnings.push(
        `operations of service ${name} were cut short and wait for it: it is not configured now`,
      );
    const known = intents.filter(isKnown);
    // Locks are taken before the first wait, so that nobody comes before recovery.
    const recovering = recover(
      known.filter((intent) => !isLost(intent)),
      options,
    );
    await abandon(known.filter(isLost), options);
    log.info({ count: await recovering, open: operations.stuck.size }, "recovery done");
  }

  /** Repeats some housekeeping, which `close` waits for. */
  #every(ms: number, failure: string, task: () => Promise<unknown>): void {
    const run = (): void => {
      this.#housekeeping = this.#housekeeping
        .then(task)
        .catch((error: unknown) => this.#log.warn({ error: stored(error) }, failure));
    };
    this.#timers.push(setInterval(run, ms).unref());
  }

  /** Resolves once everything that was found open at the start has been tried. */
  async recovered(): Promise<void> {
    await this.#recovering;
  }

  /** Waits for running operations, then lets everything go. */
  async close(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.#recovering;
    await this.#housekeeping;
    await this.operations.stop();
    for (const service of this.services.values()) await service.close();
    await this.#release();
  }
}

/** A promise that is awaited later: until then its failure is no surprise to the process. */
function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

async function openOwnJournal(
  { journalFolder, faults, retentionMs }: StorageOptions,
  context: OpContext,
  cleanup: (() => Promise<unknown>)[],
): Promise<OpenedJournal & { lock: FileHandle }> {
  const lock = await lockFolder(journalFolder);
  cleanup.push(() => lock.close());
  const opened = await openJournal(journalFolder, context, {
    ...(faults !== undefined && { faults }),
    ...(retentionMs !== undefined && { retentionMs }),
  });
  cleanup.push(() => opened.close());
  return { ...opened, lock };
}

/** One configured service's way to its bytes, and to other hosts. */
interface Backend {
  readonly driver: StorageDriver;
  readonly exporter?: Exporter;
  readonly exporters: readonly Exporter[];
}

async function openBackend(
  { name, driver: module, config, exporter, exporters = [] }: ServiceSpec,
  { libFolder }: StorageOptions,
  context: OpContext,
  cleanup: (() => Promise<unknown>)[],
  locks: FileHandle[],
): Promise<Backend> {
  const own = { ...context, service: name, libFolder };
  try {
    const driver = await module.open(config, own);
    cleanup.push(() => driver.close());
    for (const folder of driver.ownFolders ?? []) {
      const lock = await lockFolder(folder);
      locks.push(lock);
      cleanup.push(() => lock.close());
    }
    const sharing = { ...own, shared: openShared() };
    const opened = async (spec: ExporterSpec): Promise<Exporter> => {
      const one = await spec.module.open(spec.config, sharing);
      cleanup.push(() => one.close());
      return one;
    };
    const others: Exporter[] = [];
    for (const spec of exporters) others.push(await opened(spec));
    if (exporter === undefined) return { driver, exporters: others };
    return { driver, exporter: await opened(exporter), exporters: others };
  } catch (error) {
    const { code, message, data } = stored(error);
    throw new StorageError(
      code,
      `service ${name}: ${message}`,
      { ...data, service: name },
      { cause: error },
    );
  }
}
