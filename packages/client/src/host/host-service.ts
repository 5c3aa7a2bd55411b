/** One service as this host uses it: with its instance ID, its local devices and its executor. */
import { isSameInstance, StorageError } from "@libstorage/model";
import type { CallContext, Volume, VolumeAttachment, VolumeService } from "@libstorage/model";
import type { Attached, ExecutorContext, Limits, Scan } from "../executor/executor.js";
import { openExecutor } from "../executor/index.js";
import { waitForDevice } from "../executor/wait.js";
import { Connections } from "./connections.js";
import { newHoldToken } from "./hold-token.js";
import { identify, IdentityCache } from "./identity.js";
import type { HostIdentity } from "./identity.js";
import { mayHaveHappened } from "./mount-errors.js";
import type { Undo } from "./undo.js";
import { filterFor, findNamed } from "./volume-names.js";

export interface HostServiceOptions {
  readonly service: VolumeService;
  /** The service's name. */
  readonly name: string;
  /** Tells servers apart whose services and volumes have the same names: the address, or `embedded`. */
  readonly server: string;
  readonly executors: ExecutorContext;
  /** A controller client touches no device of its host. Default: integration. */
  readonly type?: "integration" | "controller";
  /** How long an attached device may take to appear. */
  readonly attachTimeoutMs: number;
  readonly scan: Scan;
  /** How long the server's answer about the instance ID is believed. */
  readonly instanceIDCacheMs: number;
}

/** A device that does not go away at once is busy with the network. */
const DISCONNECT_MS = 120_000;

/** Local devices go into a header, and servers bound those. */
const MAX_DEVICE_TEXT = 4096;

/** All attachments, with this host's devices in them: states are 2 mine, 3 free, 4 another's. */
const MASK = 5;

export function signalOf({ signal }: CallContext): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

/** How this host reaches a volume, from what the server says. */
export function attachedBy({ volumeID, deviceName, fields }: VolumeAttachment): Attached {
  return { volumeID, device: deviceName, fields: fields ?? {} };
}

export class HostService {
  readonly #options: HostServiceOptions;
  readonly #identity: IdentityCache;
  readonly connections: Connections;

  constructor(options: HostServiceOptions) {
    this.#options = options;
    const { service, name, executors, server } = options;
    this.connections = new Connections(executors.libFolder, server, name);
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
    const { driver, deviceMap } = await executor.localDevices(this.#options.scan);
    let length = 0;
    const fitting = Object.entries(deviceMap).filter(([key, path]) => {
      length += key.length + path.length + 3;
      return length <= MAX_DEVICE_TEXT;
    });
    const devices = { driver, deviceMap: Object.fromEntries(fitting) };
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

  /** The ids of the volumes that are attached to this host. */
  async ownVolumes(context: CallContext): Promise<ReadonlySet<string>> {
    const volumes = await this.service.volumesByService(
      { service: this.name, attachments: MASK },
      undefined,
      await this.asHost(context),
    );
    const own = new Set<string>();
    for (const volume of Object.values(volumes))
      if ((await this.ownAttachment(volume, context)) !== undefined) own.add(volume.id);
    return own;
  }

  /** This host's attachment among those of a volume. */
  async ownAttachment(volume: Volume, context: CallContext): Promise<VolumeAttachment | undefined> {
    const { instanceID } = await this.identity(context);
    return volume.attachments?.find(
      (one) => one.instanceID !== null && isSameInstance(one.instanceID, instanceID),
    );
  }

  /**
   * Attaches a volume to this host, connects to it, and waits for its device. Doing it again changes nothing.
   * @param note takes the way back of each step before it is done
   * @returns the volume with this host's attachment
   */
  async attach(
    volumeID: string,
    force: boolean,
    context: CallContext,
    note: (undo: Undo) => void = () => {},
  ): Promise<Volume> {
    const { executor } = await this.identity(context);
    const back: Undo = (signal) => this.#detachFromServer(volumeID, false, { signal });
    const { volume, attachToken } = await this.hold(volumeID, force, context).catch(
      (error: unknown) => {
        // What is no refusal may have been done all the same.
        if (mayHaveHappened(error)) note(back);
        throw error;
      },
    );
    note(back);
    const own = await this.ownAttachment(volume, context);
    if (own !== undefined) await this.connect(own, context, note);
    if (attachToken === "" || !executor.waits) return volume;
    await this.#waitFor(attachToken, context);
    return this.inspect(volumeID, context);
  }

  /** The one request by which this host becomes a volume's holder; one that is so learns how it reaches the volume. */
  async hold(
    volumeID: string,
    force: boolean,
    context: CallContext,
  ): Promise<Awaited<ReturnType<VolumeService["volumeAttach"]>>> {
    const { executor, info } = await this.identity(context);
    // A service that ignores the name gets none, and answers its own.
    const ignored = info.driver.nextDevice?.ignore === true;
    const next = ignored ? undefined : await executor.nextDevice?.();
    return this.service.volumeAttach(
      { service: this.name, volumeID },
      {
        ...(force && { force }),
        ...(next !== undefined && { nextDeviceName: next }),
        // What this host begins on a device is its own as long as it has it.
        ...(info.driver.type === "block" && { opts: newHoldToken() }),
      },
      await this.asHost(context),
    );
  }

  /** Makes an attached volume appear on this host, where that needs a connection. */
  async connect(
    own: VolumeAttachment,
    context: CallContext,
    note: (undo: Undo) => void = () => {},
  ): Promise<void> {
    const { executor } = await this.identity(context);
    const attached = attachedBy(own);
    if (executor.connects?.(attached) !== true) return;
    note((signal) =>
      this.connections.disconnect(executor, attached, { signal, timeoutMs: DISCONNECT_MS }),
    );
    await this.connections.connect(executor, attached, {
      signal: context.signal ?? new AbortController().signal,
      timeoutMs: this.#options.attachTimeoutMs,
    });
  }

  /**
   * Takes a volume's device from this host. Asks no server.
   * @throws {StorageError} `failed-precondition` while it is in use
   */
  async disconnect(volumeID: string, context: CallContext): Promise<void> {
    const known = await this.connections.read(volumeID);
    if (known === undefined) return;
    const executor = openExecutor(known.driver, this.#options.executors);
    if (executor === undefined) return;
    const limits: Limits = {
      signal: context.signal ?? new AbortController().signal,
      timeoutMs: DISCONNECT_MS,
    };
    await this.connections.disconnect(executor, known, limits);
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

  /**
   * Takes a volume from this host; with `force` from whoever has it. Unmounts nothing.
   * @throws {StorageError} `failed-precondition` while this host uses it, without `force`
   */
  async detach(volumeID: string, force: boolean, context: CallContext): Promise<Volume | null> {
    await this.disconnect(volumeID, context).catch((error: unknown) => {
      if (!force) throw error;
      const text = error instanceof Error ? error.message : String(error);
      this.#options.executors.warn?.(`${text}; it is taken away all the same`);
    });
    return this.#detachFromServer(volumeID, force, context);
  }

  async #detachFromServer(
    volumeID: string,
    force: boolean,
    context: CallContext,
  ): Promise<Volume | null> {
    return this.service.volumeDetach(
      { service: this.name, volumeID },
      { ...(force && { force }) },
      await this.asHost(context),
    );
  }
}
