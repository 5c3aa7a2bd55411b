/** One service as this host uses it: with its instance ID, its local devices and its executor. */
import { isSameInstance, StorageError } from "@libstorage/model";
import type { CallContext, Volume, VolumeAttachment, VolumeService } from "@libstorage/model";
import type { ExecutorContext, Scan } from "../executor/executor.js";
import { waitForDevice } from "../executor/wait.js";
import { identify, IdentityCache } from "./identity.js";
import type { HostIdentity } from "./identity.js";
import { filterFor, findNamed } from "./volume-names.js";

export interface HostServiceOptions {
  readonly service: VolumeService;
  /** The service's name. */
  readonly name: string;
  readonly executors: ExecutorContext;
  /** A controller client touches no device of its host. Default: integration. */
  readonly type?: "integration" | "controller";
  /** How long an attached device may take to appear. */
  readonly attachTimeoutMs: number;
  readonly scan: Scan;
  /** How long the server's answer about the instance ID is believed. */
  readonly instanceIDCacheMs: number;
}

/** All attachments, with this host's devices in them: states are 2 mine, 3 free, 4 another's. */
const MASK = 5;

export function signalOf({ signal }: CallContext): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

export class HostService {
  readonly #options: HostServiceOptions;
  readonly #identity: IdentityCache;

  constructor(options: HostServiceOptions) {
    this.#options = options;
    const { service, name, executors } = options;
    this.#identity = new IdentityCache(
      (context) => identify(service, name, executors, context),
      options.instanceIDCacheMs,
    );
  }

  get name(): string {
    return this.#options.name;
  }

  get service(): VolumeService {
    return this.#options.service;
  }

  /** @throws {StorageError} `failed-precondition` for a controller client; `unimplemented` */
  async identity(context: CallContext): Promise<HostIdentity> {
    if (this.#options.type === "controller")
      throw new StorageError(
        "failed-precondition",
        "this client is a controller (libstorage.client.type), which attaches and mounts nothing",
      );
    return this.#identity.get(signalOf(context));
  }

  /** The context of a call that is about devices. */
  async asHost(context: CallContext): Promise<CallContext> {
    const { executor, instanceID } = await this.identity(context);
    const devices = await executor.localDevices(this.#options.scan);
    return { ...context, instanceIDs: [instanceID], localDevices: [devices] };
  }

  /** By id or exact name. @throws {StorageError} `not-found`; `failed-precondition` when there are several */
  async find(name: string, context: CallContext): Promise<Volume> {
    const filter = filterFor(name);
    const params = {
      service: this.name,
      attachments: MASK,
      ...(filter !== undefined && { filter }),
    };
    const volumes = await this.service.volumesByService(
      params,
      undefined,
      await this.asHost(context),
    );
    return findNamed("volume", name, { [this.name]: volumes }).object;
  }

  async inspect(volumeID: string, context: CallContext): Promise<Volume> {
    const params = { service: this.name, volumeID, attachments: MASK };
    return this.service.volumeInspect(params, undefined, await this.asHost(context));
  }

  /** This host's attachment among those of a volume. */
  async ownAttachment(volume: Volume, context: CallContext): Promise<VolumeAttachment | undefined> {
    const { instanceID } = await this.identity(context);
    return volume.attachments?.find(
      (one) => one.instanceID !== null && isSameInstance(one.instanceID, instanceID),
    );
  }

  /**
   * Attaches a volume to this host and waits for its device. Doing it again changes nothing.
   * @returns the volume with this host's attachment
   */
  async attach(volumeID: string, force: boolean, context: CallContext): Promise<Volume> {
    const { executor, info } = await this.identity(context);
    // A service that ignores the name gets none, and answers its own.
    const ignored = info.driver.nextDevice?.ignore === true;
    const next = ignored ? undefined : await executor.nextDevice?.();
    const { volume, attachToken } = await this.service.volumeAttach(
      { service: this.name, volumeID },
      { ...(force && { force }), ...(next !== undefined && { nextDeviceName: next }) },
      await this.asHost(context),
    );
    if (attachToken === "" || !executor.waits) return volume;
    await this.#waitFor(attachToken, context);
    return this.inspect(volumeID, context);
  }

  async #waitFor(token: string, context: CallContext): Promise<void> {
    const { executor } = await this.identity(context);
    const { attachTimeoutMs: timeoutMs, scan } = this.#options;
    const wait = { token, scan, timeoutMs, ...signalOf(context) };
    const { found, devices } = await waitForDevice(executor, wait);
    if (found) return;
    const seen = Object.keys(devices.deviceMap).join(", ");
    throw new StorageError(
      "deadline-exceeded",
      `the device ${token} did not appear on this host within ${timeoutMs / 1000} s (there: ${seen === "" ? "none" : seen}); look at the kernel's log, or set libstorage.device.attachTimeout`,
      { token },
    );
  }

  /** Takes a volume from this host; with `force` from whoever has it. Unmounts nothing. */
  async detach(volumeID: string, force: boolean, context: CallContext): Promise<Volume | null> {
    return this.service.volumeDetach(
      { service: this.name, volumeID },
      { ...(force && { force }) },
      await this.asHost(context),
    );
  }
}
