/**
 * Volumes as this host uses them: made with defaults, attached, mounted, counted, and given back. Section
 * 16 of the contract. Works over the REST client and over an in-process service alike; the plugins for
 * containers stand on it.
 *
 * What is under way is written down before it is done, so that a process that ends in the middle leaves
 * a state from which every operation goes on: mounting again mounts, unmounting takes away what is there.
 */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { CallContext, Volume, VolumeAttachment } from "@libstorage/model";
import type { Attached } from "../executor/executor.js";
import { canonical, removeEmpty } from "../executor/mount-point.js";
import { openExecutor } from "../executor/index.js";
import { createRequest } from "./create-request.js";
import type { CreateOptions } from "./create-request.js";
import { attachAlone, expandHere, howToMount, mountThere, takeAway } from "./device-steps.js";
import { withHostLock } from "./host-lock.js";
import { attachedBy, HostService, signalOf } from "./host-service.js";
import type { HostServiceOptions } from "./host-service.js";
import { LocalMounts } from "./local-mounts.js";
import type { LocalMountsOptions } from "./local-mounts.js";
import { usesOf, withoutUse, withUse } from "./mount-records.js";
import type { MountRecordFile, MountRecords } from "./mount-records.js";
import type { MountedVolume, MountOptions, Unmounted, UnmountOptions } from "./mount-requests.js";
import type { OperationSettings } from "./operation-settings.js";
import { withOwn } from "./own-attachment.js";
import { pathPart } from "./path-part.js";
import { seenElsewhere } from "./other-namespaces.js";
import { Remains } from "./remains.js";
import { isThere, makeRootFolder } from "./root-folder.js";
import { failing, heldBy, mayPass, notHere } from "./mount-errors.js";
import { takenBack } from "./undo.js";
import type { Undo } from "./undo.js";

export interface HostVolumesOptions extends HostServiceOptions, LocalMountsOptions {}

const LOCK_WAIT_MS = 60_000;

export class HostVolumes {
  readonly host: HostService;
  readonly local: LocalMounts;
  readonly #options: HostVolumesOptions;
  readonly #records: MountRecords;
  readonly #remains: Remains;

  constructor(options: HostVolumesOptions) {
    this.#options = options;
    this.host = new HostService(options);
    this.local = new LocalMounts(options);
    this.#records = this.local.records;
    this.#remains = new Remains(this.host, this.#records, options.executors);
  }

  get operations(): OperationSettings {
    return this.#options.operations;
  }

  /** Makes a volume with the settings' defaults. @returns undefined when creating is switched off */
  async create(
    name: string,
    options: CreateOptions,
    context: CallContext,
  ): Promise<Volume | undefined> {
    const { create } = this.#options.operations;
    if (create.disable) return undefined;
    const body = createRequest(name, options, create);
    return this.host.service.volumeCreate({ service: this.host.name }, body, context);
  }

  async remove(name: string, context: CallContext): Promise<void> {
    const { remove } = this.#options.operations;
    if (remove.disable) return;
    const { id } = await this.host.find(name, context);
    const params = { service: this.host.name, volumeID: id, force: remove.force };
    await this.host.service.volumeRemove(params, undefined, context);
  }

  /** The folder to use of a volume that is mounted here; empty for one that is not. Asks no server. */
  async path(name: string): Promise<string> {
    return this.local.pathOf(await this.local.named(name));
  }

  /** What is mounted here, by this host's records and its mount table together. */
  async mounted(): Promise<readonly MountRecordFile[]> {
    return this.local.mounted();
  }

  /**
   * Compares the records with what is mounted, as a process does that starts: uses of volumes that are no
   * longer mounted are forgotten. @returns the ids of those
   */
  async reconcile(context: CallContext): Promise<readonly string[]> {
    const gone: string[] = [];
    for (const { volumeID } of await this.#records.all())
      await this.locked(volumeID, context, async () => {
        const record = await this.#records.read(volumeID);
        if (record?.phase !== "mounted" || (await this.local.stands(record))) return;
        await this.#records.remove(volumeID);
        gone.push(volumeID);
      });
    return gone;
  }

  /**
   * Makes a volume usable on this host and counts the use. One that stands there already is only counted.
   * @throws {StorageError} `failed-precondition` when another host has it and `preempt` is not set
   */
  async mount(name: string, options: MountOptions, context: CallContext): Promise<MountedVolume> {
    const { executor } = await this.host.identity(context);
    if (executor.mount === undefined) throw failing.noMount(name, executor.driver);
    const { likelyID } = options;
    if (likelyID !== undefined) {
      const mounted = await this.#mountLikely(name, likelyID, options, context);
      if (mounted !== undefined) return mounted;
    }
    const found = await this.#findOrCreate(name, options, context);
    return this.locked(found.id, context, () =>
      this.#mountTried(() => this.#mountLocked(found, options, context), context),
    );
  }

  /** With one look at the volume, under its lock. @returns undefined when the id is not what the name means now */
  #mountLikely(
    name: string,
    likelyID: string,
    options: MountOptions,
    context: CallContext,
  ): Promise<MountedVolume | undefined> {
    return this.locked(likelyID, context, () =>
      this.#mountTried(async () => {
        const volume = await this.host.inspect(likelyID, context).catch((error: unknown) => {
          if (error instanceof StorageError && error.code === "not-found") return undefined;
          throw error;
        });
        if (volume === undefined || (volume.name !== name && volume.id !== name)) return undefined;
        return this.#mountSeen(volume, options, context);
      }, context),
    );
  }

  async #mountTried<T>(act: () => Promise<T>, context: CallContext): Promise<T> {
    const { mount } = this.#options.operations;
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await act();
      } catch (error) {
        if (attempt >= mount.retryCount || !mayPass(error)) throw error;
      }
      await sleep(mount.retryWaitMs, undefined, signalOf(context));
    }
  }

  async #findOrCreate(name: string, options: MountOptions, context: CallContext): Promise<Volume> {
    const implicit = options.create ?? this.#options.operations.create.implicit;
    try {
      return await this.host.find(name, context);
    } catch (error) {
      const isMissing = error instanceof StorageError && error.code === "not-found";
      const made = isMissing && implicit ? await this.create(name, {}, context) : undefined;
      if (made === undefined) throw error;
      return made;
    }
  }

  async #mountLocked(
    found: Volume,
    options: MountOptions,
    context: CallContext,
  ): Promise<MountedVolume> {
    const record = await this.#records.read(found.id);
    const stands = record !== undefined && (await this.local.stands(record));
    const had = await this.host.ownAttachment(found, context);
    // What was found before the lock was taken may have changed since. A volume that is to be attached
    // anyway needs no second look.
    const isFresh = had === undefined && !stands;
    const volume = isFresh ? found : await this.host.inspect(found.id, context);
    return this.#mountSeen(volume, options, context);
  }

  /** Mounts a volume as it was seen under its lock. */
  async #mountSeen(
    volume: Volume,
    options: MountOptions,
    context: CallContext,
  ): Promise<MountedVolume> {
    const record = await this.#records.read(volume.id);
    const stands = record !== undefined && (await this.local.stands(record));
    const own = await this.host.ownAttachment(volume, context);
    if (!stands)
      return withOwn(this.host, own, context, (now) =>
        this.#mountNew(volume, now, options, context),
      );
    if (own === undefined) throw heldBy(volume, record.mountPoint);
    if (options.mountPoint !== undefined && options.mountPoint !== record.mountPoint)
      throw failing.elsewhere(volume, record.mountPoint, options.mountPoint);
    const path = await makeRootFolder(record.mountPoint, this.#options.operations.mount);
    const uses = withUse(record, options.user);
    await this.#records.write({ ...record, ...uses, name: volume.name, phase: "mounted" });
    const { volumeID, mountPoint, kind } = record;
    const users = usesOf({ ...record, ...uses });
    return { volumeID, name: volume.name, mountPoint, kind, path, users, wasThere: true };
  }

  async #mountNew(
    volume: Volume,
    own: VolumeAttachment | undefined,
    options: MountOptions,
    context: CallContext,
  ): Promise<MountedVolume> {
    const { mount } = this.#options.operations;
    const wanted = await canonical(
      options.mountPoint ?? join(mount.path, pathPart(volume.name || volume.id)),
    );
    const { driver } = (await this.host.identity(context)).executor;
    await this.#remains.clear(volume.id, context);
    const left = await this.#records.read(volume.id);
    // An earlier try may have made the folder, and ended before it could say what became of it.
    const isLeft = left?.mountPoint === wanted && left.ownsFolder;
    const ownsFolder = isLeft || !(await isThere(wanted));
    const none = { users: 0, namedUsers: [] };
    const base = { volumeID: volume.id, name: volume.name, driver, ownsFolder, ...none };
    const undo: Undo[] = [];
    const write = (
      { device, fields }: Pick<Attached, "device" | "fields">,
      change: Partial<MountRecordFile>,
    ): Promise<MountRecordFile> =>
      this.#records.write({
        ...base,
        device,
        fields,
        mountPoint: wanted,
        kind: "mount",
        phase: "mounting",
        ...change,
      });
    await write(own === undefined ? { device: "", fields: {} } : attachedBy(own), {});
    undo.push(() => this.#records.remove(volume.id));
    // A mount that failed may have made its folder.
    if (ownsFolder) undo.push(() => removeEmpty(wanted));
    try {
      const attached = attachedBy(own ?? (await this.#attach(volume.id, options, undo, context)));
      if (attached.device === "") throw failing.noDevice(volume.id);
      if (own === undefined) await write(attached, {});
      // The host may have been started anew since it was attached.
      if (own !== undefined) await this.host.connect(own, context, (step) => undo.push(step));
      // Whoever gets the device next must find it blank.
      undo.push((signal) => this.#remains.clear(volume.id, { signal }));
      const place = { mountPoint: wanted, ownsFolder };
      const { executor } = await this.host.identity(context);
      const how = howToMount(volume, options, this.#options.operations, (isBegun) =>
        write(attached, isBegun ? { phase: "formatting" } : {}),
      );
      const mounted = await mountThere(executor, attached, place, how, undo, context);
      const path = await makeRootFolder(mounted.mountPoint, mount);
      const { mountPoint, kind, source } = mounted;
      const uses = withUse(none, options.user);
      await write(attached, { mountPoint, kind, source, ...uses, phase: "mounted" });
      return { ...mounted, volumeID: volume.id, name: volume.name, path, users: 1 };
    } catch (error) {
      throw await takenBack(error, undo);
    }
  }

  async #attach(
    volumeID: string,
    options: MountOptions,
    undo: Undo[],
    context: CallContext,
  ): Promise<VolumeAttachment> {
    const force = options.preempt ?? this.#options.operations.mount.preempt;
    const volume = await this.host.attach(volumeID, force, context, (step) => undo.push(step));
    const own = await this.host.ownAttachment(volume, context);
    if (own === undefined) throw failing.notAttached(volumeID);
    return own;
  }

  /** Attaches a volume to this host and connects to it, so that its device is there. Mounts nothing. */
  async attach(volumeID: string, force: boolean, context: CallContext): Promise<Volume> {
    return this.locked(volumeID, context, () => attachAlone(this.host, volumeID, force, context));
  }

  /** Takes a volume from this host. Unmounts nothing. */
  async detach(volumeID: string, force: boolean, context: CallContext): Promise<Volume | null> {
    return this.locked(volumeID, context, async () => {
      await this.#clearBeforeGone(volumeID, force, context);
      return this.host.detach(volumeID, force, context);
    });
  }

  /** Whoever gets the device next must find it blank. */
  async #clearBeforeGone(volumeID: string, force: boolean, context: CallContext): Promise<void> {
    await this.#remains.clear(volumeID, context).catch((error: unknown) => {
      if (!force) throw error;
      const text = error instanceof Error ? error.message : String(error);
      this.#options.executors.warn?.(
        `volume ${volumeID} is given back with a part of a file system on it, because of which nobody can mount it: ${text}`,
      );
    });
  }

  /**
   * Makes a volume's new size known to this host, and fits its file system where it is mounted.
   * @returns what was done, in words; undefined when this host does not have the volume
   */
  async expanded(volumeID: string, context: CallContext): Promise<string | undefined> {
    return this.locked(volumeID, context, () =>
      expandHere(this.host, this.local, volumeID, context),
    );
  }

  /**
   * Gives one use back; the last one unmounts and detaches. A volume that this host has attached without
   * having counted a use is unmounted and detached as well, unless a user is named.
   * @throws {StorageError} `failed-precondition` when it is in use, or not here at all
   */
  async unmount(name: string, options: UnmountOptions, context: CallContext): Promise<Unmounted> {
    const { user } = options;
    const isForced = options.force === true || this.#options.operations.unmount.ignoreUsedCount;
    const known = await this.local.named(name);
    const volumeID = known?.volumeID ?? (await this.host.find(name, context)).id;
    return this.locked(volumeID, context, async () => {
      const record = await this.#records.read(volumeID);
      if (record === undefined)
        return user === undefined
          ? this.#unmountUncounted(volumeID, context)
          : { volumeID, users: 0 };
      const stands = await this.local.stands(record);
      const left = { ...record, ...withoutUse(record, user) };
      const isUsed = stands && !isForced && usesOf(left) > 0;
      if (isUsed && user === undefined && record.users === 0) throw failing.namedUsers(record);
      // Who ends a use by its name may have others that the name does not tell apart.
      const seenBy =
        stands && !isForced && !isUsed && user !== undefined
          ? await seenElsewhere(record.mountPoint)
          : [];
      if (isUsed || seenBy.length > 0) {
        await this.#records.write(left);
        return { volumeID, users: usesOf(left), ...(seenBy.length > 0 && { seenBy }) };
      }
      await this.end(record, stands, context, options.force);
      return { volumeID, users: 0 };
    });
  }

  /**
   * Unmounts and detaches, whoever uses it. Under the volume's lock.
   * @param force also with half a file system on its device that cannot be cleared
   */
  async end(
    record: MountRecordFile,
    stands: boolean,
    context: CallContext,
    force = false,
  ): Promise<void> {
    if (!stands) await this.#clearBeforeGone(record.volumeID, force, context);
    await this.#records.write({ ...record, phase: "unmounting" });
    // The executor that mounted it, which needs no server to take it away.
    const executor = openExecutor(record.driver, this.#options.executors);
    if (stands) await takeAway(executor, [record], record, context);
    else if (record.ownsFolder) await removeEmpty(record.mountPoint);
    await this.#giveBack(record.volumeID, context);
    await this.#records.remove(record.volumeID);
  }

  async #unmountUncounted(volumeID: string, context: CallContext): Promise<Unmounted> {
    const volume = await this.host.inspect(volumeID, context);
    const own = await this.host.ownAttachment(volume, context);
    if (own === undefined) throw notHere(volume);
    const { executor } = await this.host.identity(context);
    const points = (await executor.mountPointsOf?.(own.deviceName)) ?? [];
    const below = `${this.#options.operations.mount.path}/`;
    const places = points.map((mountPoint) => ({
      mountPoint,
      ownsFolder: mountPoint.startsWith(below),
    }));
    await takeAway(executor, places, attachedBy(own), context);
    await this.#giveBack(volumeID, context);
    return { volumeID, users: 0 };
  }

  /** A volume that is gone needs no detaching. */
  async #giveBack(volumeID: string, context: CallContext): Promise<void> {
    await this.host.detach(volumeID, false, context).catch((error: unknown) => {
      if (!(error instanceof StorageError) || error.code !== "not-found") throw error;
    });
  }

  /** Alone among the processes of this host with this volume. */
  locked<T>(volumeID: string, context: CallContext, act: () => Promise<T>): Promise<T> {
    const { exec } = this.#options.executors;
    const signal = context.signal ?? new AbortController().signal;
    const lock = this.#records.lockOf(volumeID);
    return withHostLock(exec, lock, { waitMs: LOCK_WAIT_MS, signal }, act);
  }
}
