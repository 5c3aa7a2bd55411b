/** A plugin's way to its service and to this host, opened when it is first needed. */
import { hostname } from "node:os";
import { StorageError } from "@libstorage/model";
import type { CallContext, VolumeService } from "@libstorage/model";
import { openClient } from "../client.js";
import type { ContentClient } from "../content.js";
import { runCommand } from "../executor/exec.js";
import type { Exec } from "../executor/exec.js";
import type { ExecutorContext, Places } from "../executor/executor.js";
import { HostVolumes } from "../host/host-volumes.js";
import type { ClientSettings } from "../settings.js";
import { watchedExec, watchedService } from "./waiting.js";

export interface PluginHostOptions {
  readonly settings: ClientSettings;
  /** Default: commands of this host. */
  readonly exec?: Exec;
  /** Takes what somebody should know though it is no error. */
  readonly warn?: (text: string) => void;
  /** Where the kernel shows its devices, for tests. */
  readonly places?: Partial<Places>;
  /** What stands between the plugin and its server, for tests. */
  readonly wrapService?: (service: VolumeService) => VolumeService;
}

/** A host that is off answers nothing at all, and everybody who asks waits. */
const CONNECT_TIMEOUT_MS = 3_000;

/** Nothing here asks the server before a call needs it: at boot it may come up after the plugin. */
export class PluginHost {
  readonly settings: ClientSettings;
  readonly address: string;
  readonly #service: VolumeService;
  readonly #exec: Exec;
  readonly #places: Partial<Places> | undefined;
  readonly #warn: ((text: string) => void) | undefined;
  /** Content of volumes as streams. */
  readonly content: ContentClient;
  readonly #close: () => void;
  #volumes: Promise<HostVolumes> | undefined;

  constructor(options: PluginHostOptions) {
    const { settings, exec = runCommand, wrapService, places, warn } = options;
    this.#places = places;
    this.#warn = warn;
    this.settings = settings;
    const { host, tls, token, keepAlive, responseTimeoutMs } = settings;
    const client = openClient({
      host,
      keepAlive,
      responseTimeoutMs,
      connectTimeoutMs: CONNECT_TIMEOUT_MS,
      remembers: true,
      ...(tls !== undefined && { tls }),
      ...(token !== undefined && { token }),
    });
    this.address = client.address;
    this.content = client;
    this.#service = watchedService(wrapService?.(client) ?? client, client.address);
    this.#exec = watchedExec(exec);
    this.#close = () => client.close();
  }

  /** @throws {StorageError} when no service is named and the server has not exactly one */
  async volumes(context: CallContext): Promise<HostVolumes> {
    this.#volumes ??= this.#open(context).catch((error: unknown) => {
      // A failure is not remembered.
      this.#volumes = undefined;
      throw error;
    });
    return this.#volumes;
  }

  /** What executors know of this host; there without any server. */
  get executors(): ExecutorContext {
    const { config, folders } = this.settings;
    return {
      config,
      libFolder: folders.lib,
      hostName: hostname(),
      isRoot: process.geteuid?.() === 0,
      exec: this.#exec,
      ...(this.#places !== undefined && { places: this.#places }),
      ...(this.#warn !== undefined && { warn: this.#warn }),
    };
  }

  async #open(context: CallContext): Promise<HostVolumes> {
    const { settings } = this;
    return new HostVolumes({
      service: this.#service,
      name: settings.service ?? (await this.#onlyService(context)),
      server: this.address,
      executors: this.executors,
      operations: settings.operations,
      type: settings.type,
      attachTimeoutMs: settings.attachTimeoutMs,
      scan: settings.scan,
      instanceIDCacheMs: settings.instanceIDCacheMs,
    });
  }

  async #onlyService(context: CallContext): Promise<string> {
    const names = Object.keys(await this.#service.services({}, undefined, context));
    const [only] = names;
    if (only !== undefined && names.length === 1) return only;
    throw new StorageError(
      "failed-precondition",
      names.length === 0
        ? `the server ${this.address} has no services`
        : `the server ${this.address} has several services (${names.join(", ")}): name one with libstorage.service`,
      { services: names },
    );
  }

  close(): void {
    this.#close();
  }
}
