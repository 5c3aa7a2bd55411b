/** The service behind the plugin, and what it can do. */
import { StorageError } from "@libstorage/model";
import type { CallContext, ServiceInfo, Volume, VolumeService } from "@libstorage/model";
import type { HostIdentity } from "../../host/identity.js";
import type { HostService } from "../../host/host-service.js";
import type { PluginHost } from "../plugin-host.js";
import { isPossibleID } from "./names.js";
import { CsiError, hasCode } from "./status.js";

/** With all attachments, whoever asks. */
const ALL_ATTACHMENTS = 1;

export interface Service {
  readonly calls: VolumeService;
  readonly name: string;
}

interface Known {
  readonly until: number;
  readonly info: Promise<ServiceInfo>;
}

export class Backend {
  readonly #host: PluginHost;
  readonly #infoMs: number;
  #known: Known | undefined;

  constructor(host: PluginHost, infoMs: number) {
    this.#host = host;
    this.#infoMs = infoMs;
  }

  get address(): string {
    return this.#host.address;
  }

  async hostService(signal: AbortSignal): Promise<HostService> {
    return (await this.#host.volumes({ signal })).host;
  }

  async service(signal: AbortSignal): Promise<Service> {
    const { service: calls, name } = await this.hostService(signal);
    return { calls, name };
  }

  /** What the service can do; its word is believed for a while. */
  async info(signal: AbortSignal): Promise<ServiceInfo> {
    if (this.#known === undefined || performance.now() >= this.#known.until) {
      const info = this.#ask(signal);
      const known = { until: performance.now() + this.#infoMs, info };
      this.#known = known;
      // A failure is not remembered.
      info.catch(() => {
        if (this.#known === known) this.#known = undefined;
      });
    }
    return this.#known.info;
  }

  async #ask(signal: AbortSignal): Promise<ServiceInfo> {
    const { calls, name } = await this.service(signal);
    return calls.serviceInspect({ service: name, abilities: true }, undefined, { signal });
  }

  /** Who this node is to the service. */
  async identity(signal: AbortSignal): Promise<HostIdentity> {
    return (await this.hostService(signal)).identity({ signal });
  }

  /** @throws {CsiError} NOT_FOUND */
  async volume(id: string, signal: AbortSignal): Promise<Volume> {
    const found = await this.findVolume(id, signal);
    if (found === undefined) throw new CsiError("NOT_FOUND", `there is no volume ${id}`);
    return found;
  }

  async findVolume(id: string, signal: AbortSignal): Promise<Volume | undefined> {
    if (!isPossibleID(id)) return undefined;
    const { calls, name } = await this.service(signal);
    const params = { service: name, volumeID: id, attachments: ALL_ATTACHMENTS };
    const volume = await calls.volumeInspect(params, undefined, { signal }).catch(absent);
    // The service finds ids without regard to case; the specification's are exact.
    return volume?.id === id ? volume : undefined;
  }
}

/** For a missing object: undefined. */
export function absent(error: unknown): undefined {
  if (!hasCode(error, "not-found")) throw error;
}

/** A change's context. The caller's going away does not end it. */
export function changing(signal: AbortSignal, more: Partial<CallContext> = {}): CallContext {
  return { signal, ...more };
}

/** What is wrong with a volume, or undefined. */
export function brokenOf(volume: Volume): string | undefined {
  return volume.fields?.["broken"];
}

/** @throws {StorageError} `failed-precondition` */
export function usableVolume(volume: Volume): Volume {
  const broken = brokenOf(volume);
  if (broken === undefined) return volume;
  throw new StorageError(
    "failed-precondition",
    `volume ${volume.id} cannot be used: ${broken}; repair it, or remove it with force`,
    { volumeID: volume.id },
  );
}
