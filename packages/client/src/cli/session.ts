/** What a command works with: settings, the server, this host, and where output goes. */
import { hostname } from "node:os";
import { StorageError } from "@libstorage/model";
import type { CallContext, Environment, Snapshot, Task, Volume } from "@libstorage/model";
import { openClient } from "../client.js";
import type { Client } from "../client.js";
import type { ExecutorContext } from "../executor/executor.js";
import { runCommand } from "../executor/exec.js";
import { likelyIDs } from "../host/identity.js";
import { filterFor, findNamed } from "../host/volume-names.js";
import { loadConfiguration, loadSettings } from "../settings.js";
import type { ClientSettings, Configuration, SettingsSource } from "../settings.js";
import type { HostVolumes } from "../host/host-volumes.js";
import { columns } from "./columns.js";
import { UsageError } from "./usage-error.js";
import type { Given } from "./command.js";
import { ProgressLine } from "./progress.js";

export interface Streams {
  readonly stdout: NodeJS.WriteStream;
  readonly stderr: NodeJS.WriteStream;
}

/** A volume or a snapshot, as something to be read. */
export interface ContentSource {
  readonly service: string;
  readonly kind: "volume" | "snapshot";
  readonly id: string;
  readonly sizeGiB?: number | undefined;
  readonly fields?: Readonly<Record<string, string>> | undefined;
}

/** Masks of attachments: all of them, with states as this host sees them. */
export const ALL_ATTACHMENTS = 1;

function clientFor({ host, tls, token, keepAlive, responseTimeoutMs }: ClientSettings): Client {
  return openClient({
    host,
    keepAlive,
    responseTimeoutMs,
    ...(tls !== undefined && { tls }),
    ...(token !== undefined && { token }),
  });
}

export class Session {
  readonly #env: Environment;
  readonly #streams: Streams;
  readonly signal: AbortSignal;
  #given: Given | undefined;
  #settings: Promise<ClientSettings> | undefined;
  #client: Client | undefined;
  #progress: ProgressLine | undefined;

  constructor(env: Environment, streams: Streams, signal: AbortSignal) {
    this.#env = env;
    this.#streams = streams;
    this.signal = signal;
  }

  /** The values of the command line, once they are read. */
  begin(given: Given): void {
    this.#given = given;
  }

  get isJson(): boolean {
    return this.#given?.flag("json") === true;
  }

  /** Somebody looks at the screen. */
  get isTerminal(): boolean {
    return this.#streams.stderr.isTTY === true && !this.isJson;
  }

  /** For programs of several modules, each of which has settings of its own. */
  /** @param more keys of a command's own options */
  configuration(more: SettingsSource["flags"] = {}): Promise<Configuration> {
    const source = this.#source();
    return loadConfiguration({ ...source, flags: { ...source.flags, ...more } });
  }

  settings(): Promise<ClientSettings> {
    this.#settings ??= loadSettings(this.#source());
    return this.#settings;
  }

  #source(): SettingsSource {
    const file = this.#given?.text("config");
    return {
      env: this.#env,
      ...(file !== undefined && { file }),
      flags: {
        "libstorage.host": this.#given?.text("host"),
        "libstorage.service": this.#given?.text("service"),
      },
    };
  }

  async client(): Promise<Client> {
    const settings = await this.settings();
    this.#client ??= clientFor(settings);
    return this.#client;
  }

  /**
   * Another server. What is not said of it is as for the first one, its certificates too.
   * @param file a configuration for it alone
   */
  async otherClient(host: string | undefined, file: string | undefined): Promise<Client> {
    const source = file === undefined ? this.#source() : { env: this.#env, file, flags: {} };
    const flags = { ...source.flags, ...(host !== undefined && { "libstorage.host": host }) };
    return clientFor(await loadSettings({ ...source, flags }));
  }

  async executors(): Promise<ExecutorContext> {
    const { config, folders } = await this.settings();
    return {
      config,
      libFolder: folders.lib,
      hostName: hostname(),
      isRoot: process.geteuid?.() === 0,
      exec: runCommand,
      warn: (text) => this.warn(text),
    };
  }

  /** A call's context: who this host is, as far as it knows by itself; progress on a terminal. */
  async context(): Promise<CallContext> {
    const { type } = await this.settings();
    const ids = type === "controller" ? [] : likelyIDs(await this.executors());
    return { signal: this.signal, instanceIDs: ids };
  }

  /** The context of work that may take long: a task whose progress a terminal shows. */
  async longContext(): Promise<CallContext> {
    const context = await this.context();
    if (!this.isTerminal) return context;
    this.#progress ??= new ProgressLine(this.#streams.stderr);
    const line = this.#progress;
    return { ...context, async: true, onTask: (task: Task) => line.show(task) };
  }

  /** The service that was named, or the only one there is. */
  async serviceName(): Promise<string> {
    const { service } = await this.settings();
    if (service !== undefined) return service;
    const names = Object.keys(
      await (await this.client()).services({}, undefined, await this.context()),
    );
    const [only] = names;
    if (only !== undefined && names.length === 1) return only;
    throw new UsageError(
      names.length === 0
        ? "the server has no services"
        : `the server has several services: name one with --service (${names.join(", ")})`,
    );
  }

  /** A volume by id or exact name, in the named service or in all. */
  async findVolume(
    name: string,
    attachments: number = ALL_ATTACHMENTS,
  ): Promise<{ readonly service: string; readonly volume: Volume }> {
    const { service } = await this.settings();
    const client = await this.client();
    const filter = filterFor(name);
    const query = { attachments, ...(filter !== undefined && { filter }) };
    const context = await this.context();
    const volumes =
      service === undefined
        ? await client.volumes(query, undefined, context)
        : { [service]: await client.volumesByService({ service, ...query }, undefined, context) };
    const found = findNamed("volume", name, volumes);
    return { service: found.service, volume: found.object };
  }

  /** A snapshot by id or exact name, in the named service or in all. */
  async findSnapshot(
    name: string,
  ): Promise<{ readonly service: string; readonly snapshot: Snapshot }> {
    const { service } = await this.settings();
    const client = await this.client();
    const filter = filterFor(name);
    const query = { ...(filter !== undefined && { filter }) };
    const context = await this.context();
    const snapshots =
      service === undefined
        ? await client.snapshots(query, undefined, context)
        : { [service]: await client.snapshotsByService({ service, ...query }, undefined, context) };
    const found = findNamed("snapshot", name, snapshots);
    return { service: found.service, snapshot: found.object };
  }

  /** A volume by id or exact name, or else a snapshot. */
  async findContent(name: string): Promise<ContentSource> {
    try {
      const { service, volume } = await this.findVolume(name, 0);
      const { id, size: sizeGiB, fields } = volume;
      return { service, kind: "volume", id, sizeGiB, fields };
    } catch (error) {
      if (!(error instanceof StorageError) || error.code !== "not-found") throw error;
    }
    const { service, snapshot } = await this.findSnapshot(name).catch((error: unknown) => {
      if (!(error instanceof StorageError) || error.code !== "not-found") throw error;
      throw new StorageError("not-found", `there is no volume and no snapshot ${name}`, { name });
    });
    const { id, volumeSize: sizeGiB, fields } = snapshot;
    return { service, kind: "snapshot", id, sizeGiB, fields };
  }

  /** Shows on a terminal how far bytes are that pass this client. @param total 0 when nobody knows */
  transfer(what: string, total: number): (done: number) => void {
    if (!this.isTerminal) return () => {};
    this.#progress ??= new ProgressLine(this.#streams.stderr);
    const line = this.#progress;
    let told = 0;
    return (done) => {
      if (performance.now() - told < 100) return;
      told = performance.now();
      const progress = { done, total, unit: "bytes" };
      line.show({ id: 0, operation: what, queueTime: 0, state: "running", progress });
    };
  }

  /** Loaded only by commands that touch this host. */
  async hostVolumes(name: string): Promise<HostVolumes> {
    const settings = await this.settings();
    const client = await this.client();
    const { HostVolumes: Volumes } = await import("../host/host-volumes.js");
    return new Volumes({
      service: client,
      name,
      server: client.address,
      executors: await this.executors(),
      operations: settings.operations,
      type: settings.type,
      attachTimeoutMs: settings.attachTimeoutMs,
      scan: settings.scan,
      instanceIDCacheMs: settings.instanceIDCacheMs,
    });
  }

  /** The result: JSON as asked, else what is made for people. */
  print(value: unknown, forPeople: () => string): void {
    this.#progress?.clear();
    const text = this.isJson ? JSON.stringify(value, null, 2) : forPeople();
    if (text !== "") this.#streams.stdout.write(`${text}\n`);
  }

  /** A table; without rows only its head. */
  table(value: unknown, head: readonly string[], rows: readonly (readonly string[])[]): void {
    this.print(value, () => columns([head, ...rows]));
  }

  /** One line of a result that comes bit by bit. */
  line(text: string): void {
    this.#streams.stdout.write(`${text}\n`);
  }

  /** Something to know beside the result. */
  note(text: string): void {
    if (this.isJson) return;
    this.#progress?.clear();
    this.#streams.stderr.write(`${text}\n`);
  }

  /** Something that went well enough, but should be known. */
  warn(text: string): void {
    this.#progress?.clear();
    const line = this.isJson ? JSON.stringify({ warning: text }) : `libstorage: warning: ${text}`;
    this.#streams.stderr.write(`${line}\n`);
  }

  /** Says what failed. */
  fail(error: unknown): void {
    this.#progress?.clear();
    const message = error instanceof Error ? error.message : String(error);
    if (this.isJson && error instanceof StorageError) {
      const { code, data } = error;
      this.#streams.stderr.write(`${JSON.stringify({ error: { code, message, data } })}\n`);
    } else this.#streams.stderr.write(`libstorage: ${message}\n`);
  }

  close(): void {
    this.#progress?.clear();
    this.#client?.close();
  }
}
