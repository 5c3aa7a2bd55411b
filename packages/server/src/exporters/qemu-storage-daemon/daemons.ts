/**
 * The storage daemons of one service, shared by its exporters: one for each volume that is exported, or one for all of
 * them.
 *
 * What keeps a daemon from being ended under a volume: two locks, always taken in this order. The core's lock of a
 * volume, within which every operation on the volume runs, so that one volume is not opened and withdrawn at a time.
 * Then the lock of a daemon's folder, here, within which a daemon is looked for, started, given volumes, relieved of
 * them and ended. A volume that is withdrawn is closed, or the whole daemon ended for want of others, in one turn of that
 * lock in which the daemon itself is asked which volumes it has. A volume is opened in another turn: if that came before, its
 * nodes are found and the daemon stays; if it comes after, it finds no process and starts one. Waiting for the requests
 * of an export to end is done without the lock of the folder, so that other volumes do not wait too. Between its turns a
 * volume that has been opened keeps its daemon by its nodes, before it has its first export.
 */
import { existsSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError, parseSize } from "@libstorage/model";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import type { ExporterContext, Hold } from "../../core/exporter.js";
import type { LiveImage } from "../../core/live-image.js";
import { Locks } from "../../core/locks.js";
import { checkSame } from "./config.js";
import type { DaemonConfig } from "./config.js";
import { Daemon } from "./daemon.js";
import { probeFeatures } from "./features.js";
import type { Features } from "./features.js";
import { filterFor } from "./filters.js";
import { needNoOther } from "./other-layouts.js";
import { DAEMON_FOLDER, LAYOUTS, short } from "./layout.js";
import type { Layout } from "./layout.js";
import { LiveVolume } from "./live.js";
import { exportIDOf } from "./names.js";
import { isEncrypted, isReadOnly, nodesOf } from "./nodes.js";
import { OpenVolume } from "./open-volume.js";
import type { Opening } from "./open-volume.js";
import { killIn, pidIn } from "./process.js";
import type { Confinement } from "./process.js";

/** How long other volumes may take to be closed before their daemon is killed. */
const CLOSING_MS = 3_000;

/** One whose exports are in records is waited for: it may be in a long request, and its clients would be cut off. */
const IN_USE_GREETING_MS = 30_000;

export class VolumeDaemons {
  readonly #folder: string;
  readonly #config: DaemonConfig;
  readonly #layout: Layout;
  /** By their folders. */
  readonly #locks = new Locks();
  readonly #daemons = new Map<string, Daemon>();
  readonly #openings = new Map<string, Promise<OpenVolume>>();
  readonly #volumes = new Map<string, OpenVolume>();
  readonly #expected = new Set<Daemon>();
  readonly #listeners = new Set<() => void>();
  #features: Promise<Features> | undefined;
  #isCleared = false;

  constructor(folder: string, config: DaemonConfig) {
    this.#folder = folder;
    this.#config = config;
    this.#layout = LAYOUTS[config.daemonFor];
  }

  /** Those of the exporter's service, which the exporters of one folder share. */
  static async open(
    exporter: string,
    config: DaemonConfig,
    context: ExporterContext,
  ): Promise<VolumeDaemons> {
    const parent = config.daemonFolder ?? join(context.libFolder, "qsd");
    await context.files.makeFolder(parent);
    // Daemons that no record of this service names are ended, so it has a folder of its own.
    const folder = join(parent, short(context.service).slice(0, 8));
    await context.files.makeFolder(folder);
    const make = (): VolumeDaemons => new VolumeDaemons(folder, config);
    if (context.shared === undefined) return make();
    const first = context.shared(`first in ${folder}`, () => ({ exporter, config }));
    checkSame(first, { exporter, config }, context.service);
    return context.shared(`daemons in ${folder}`, make);
  }

  get #confinement(): Confinement {
    return { user: this.#config.daemonUser, memoryBytes: this.memoryBytes };
  }

  /** The most address space that one daemon may take. */
  get memoryBytes(): number | undefined {
    const { daemonMemory } = this.#config;
    return daemonMemory === undefined ? undefined : parseSize(daemonMemory);
  }

  /** Where they have their folders. */
  get folder(): string {
    return this.#folder;
  }

  /** Of the daemon that has a volume. */
  #folderOf(volumeID: string): string {
    return join(this.#folder, this.#layout.folderOf(volumeID));
  }

  /** Daemons of this service, of volumes and of files. */
  neighbours(): readonly number[] {
    return readdirSync(this.#folder).flatMap((name) => pidIn(join(this.#folder, name)) ?? []);
  }

  /** The path of a volume's export that has a socket of its own. @param exportID the daemon's */
  socketOf(volumeID: string, exportID: string): string {
    return join(this.#folderOf(volumeID), this.#layout.socketOf(exportID));
  }

  /** What the daemon of this host can do; asked once. */
  features(context: OpContext): Promise<Features> {
    this.#features ??= probeFeatures(this.#folder, context).catch((error: unknown) => {
      this.#features = undefined;
      throw error;
    });
    return this.#features;
  }

  /** @throws {StorageError} for what a daemon cannot open; changes nothing */
  check({ id, source }: VolumeRecord): void {
    nodesOf(source, "volume", true);
    if (!isEncrypted(source) || this.#config.encryptionKeyFile !== undefined) return;
    throw new StorageError(
      "failed-precondition",
      `volume ${id} is encrypted, and the exporter has no key; set "encryptionKeyFile" for it as for the driver`,
      { volumeID: id },
    );
  }

  /** Whether a volume's daemon has no other volume. */
  get isForVolume(): boolean {
    return this.#config.daemonFor === "volume";
  }

  /** The volume in its daemon, which is started if it does not run. */
  async open(volume: VolumeRecord, context: OpContext): Promise<OpenVolume> {
    const { id } = volume;
    const known = this.#openings.get(id) ?? this.#volumes.get(id);
    if (known !== undefined) return known;
    const opening = this.#locks.run(this.#folderOf(id), () => this.#open(volume, context));
    this.#openings.set(id, opening);
    try {
      return await opening;
    } finally {
      this.#openings.delete(id);
    }
  }

  async #open(volume: VolumeRecord, context: OpContext): Promise<OpenVolume> {
    const folder = this.#folderOf(volume.id);
    needNoOther(this.#folder, this.#layout, volume.id);
    const daemon =
      this.#daemons.get(folder) ??
      this.#watched(await Daemon.open(folder, this.#confinement, context));
    const opened = new OpenVolume(daemon, this.#layout.namesOf(volume.id));
    try {
      await opened.open(this.#opening(volume), context);
    } catch (error) {
      await this.#leave(opened, volume, context).catch((reason: unknown) =>
        context.log.warn({ error: reason, volumeID: volume.id }, "remains in a storage daemon"),
      );
      throw error;
    }
    this.#volumes.set(volume.id, opened);
    return opened;
  }

  #opening({ source }: VolumeRecord): Opening {
    return {
      nodes: (name) => nodesOf(source, name, !isReadOnly(source)),
      keyFile: isEncrypted(source) ? this.#config.encryptionKeyFile : undefined,
      imageFolder: source.kind === "file" ? dirname(source.path) : undefined,
    };
  }

  #watched(daemon: Daemon): Daemon {
    this.#daemons.set(daemon.folder, daemon);
    void daemon.closed.then(() => {
      this.#forget(daemon);
      if (!this.#expected.delete(daemon)) this.#lost();
    });
    return daemon;
  }

  /** Nobody gets it, or a volume in it, any more. */
  #forget(daemon: Daemon): void {
    if (this.#daemons.get(daemon.folder) === daemon) this.#daemons.delete(daemon.folder);
    for (const [id, volume] of this.#volumes)
      if (volume.daemon === daemon) this.#volumes.delete(id);
  }

  /** The folder's daemon if it runs. */
  async #found(folder: string, greetingMs?: number): Promise<Daemon | undefined> {
    const known = this.#daemons.get(folder);
    if (known !== undefined) return known;
    const found = await Daemon.find(folder, greetingMs);
    return found && this.#watched(found);
  }

  /** The volume if it is open. */
  async known(volumeID: string): Promise<OpenVolume | undefined> {
    const opening = this.#openings.get(volumeID)?.catch(() => undefined);
    return opening ?? this.#volumes.get(volumeID);
  }

  /** The volume in its daemon if that runs, be it that only exports are in it that an earlier server made. */
  async running(volumeID: string): Promise<OpenVolume | undefined> {
    const known = await this.known(volumeID);
    if (known !== undefined) return known;
    const folder = this.#folderOf(volumeID);
    const daemon = await this.#locks.run(folder, () => this.#found(folder));
    return daemon && new OpenVolume(daemon, this.#layout.namesOf(volumeID));
  }

  /** Brings an export that is in use to the limits of its record. */
  async limit(hold: Hold, context: OpContext): Promise<OpenVolume> {
    const volume = await this.open(hold.volume, context);
    await volume.setFilter(exportIDOf(hold), filterFor(hold));
    return volume;
  }

  /** Every further request of an export fails. One that is gone, with its daemon or without, is fine. */
  async shutDown(hold: Hold): Promise<void> {
    const volume = await this.running(hold.volume.id);
    const id = exportIDOf(hold);
    if (volume === undefined || !(await volume.exports()).includes(id)) return;
    await volume.setFilter(id, { ...filterFor(hold), isShutDown: true });
  }

  /** The image of a volume that is exported. Without the volume's lock it is not opened: it might stay so. */
  async live(
    volume: VolumeRecord,
    isLocked: boolean,
    context: OpContext,
  ): Promise<LiveImage | undefined> {
    const features = await this.features(context);
    const opened = isLocked ? await this.open(volume, context) : await this.known(volume.id);
    return opened && new LiveVolume(volume, opened, features, context);
  }

  /** Makes the new size of a device known, which has grown by itself; images are grown by their daemon. */
  async expanded({ id, source, sizeBytes }: VolumeRecord, context: OpContext): Promise<void> {
    if (source.kind !== "block") return;
    const volume = await this.known(id);
    if (volume === undefined || volume.fitted === sizeBytes) return;
    await volume.resize(sizeBytes).catch((error: unknown) => {
      // It has its size, and who is in the way sees it when they come anew.
      context.log.warn({ error, volumeID: id }, "exports have the old size");
    });
  }

  /**
   * Removes an export; answers when nobody can write through it any more. With its last export a volume is closed, and
   * with its last volume the daemon goes.
   */
  async withdraw(volume: VolumeRecord, exportID: string, context: OpContext): Promise<void> {
    const folder = this.#folderOf(volume.id);
    const daemon = await this.#locks.run(folder, () => this.#found(folder));
    // Without a process there is nobody who could write.
    if (daemon === undefined) return;
    const known = await this.known(volume.id);
    const opened =
      known?.daemon === daemon ? known : new OpenVolume(daemon, this.#layout.namesOf(volume.id));
    const isProven = await opened.removeExport(exportID).catch(() => false);
    await this.#locks.run(folder, () =>
      isProven ? this.#leave(opened, volume, context) : this.#kill(opened, context),
    );
  }

  /** Closes a volume that has no export. Within the lock of its folder, and so is what follows. */
  async #leave(opened: OpenVolume, volume: VolumeRecord, context: OpContext): Promise<void> {
    const { daemon } = opened;
    try {
      if ((await opened.exports()).length > 0) return;
      this.#volumes.delete(volume.id);
      const isLast = await opened.isAlone();
      const { source } = volume;
      const path = source.kind === "file" || source.kind === "block" ? source.path : undefined;
      if (!isLast && (await opened.close(path))) return;
      if (isLast) {
        await this.#end(daemon, context);
        return;
      }
    } catch (error) {
      context.log.warn({ error, volumeID: volume.id }, "a storage daemon does not let go");
    }
    await this.#kill(opened, context);
  }

  async #end(daemon: Daemon, context: OpContext): Promise<void> {
    this.#expected.add(daemon);
    this.#forget(daemon);
    await daemon.stop(context);
  }

  /**
   * The end of the process is a proof when its word is not. What else it served is made again; what of that was written
   * and not flushed would be lost, so it is closed first, if the process still does that.
   */
  async #kill(stuck: OpenVolume, context: OpContext): Promise<void> {
    const { folder } = stuck.daemon;
    const daemon = this.#daemons.get(folder);
    if (daemon !== undefined) {
      this.#forget(daemon);
      const closing = OpenVolume.in(daemon).then((all) =>
        Promise.allSettled(
          all
            .filter(({ names }) => names.node !== stuck.names.node)
            .map((other) => other.closeWhole(CLOSING_MS)),
        ),
      );
      await Promise.race([closing.catch(() => {}), sleep(CLOSING_MS, undefined, { ref: false })]);
    }
    await killIn(folder);
    await context.files.removeTree(folder);
  }

  /**
   * Ends daemons of volumes that nobody holds, volumes and exports that no record names: what a crash left. Daemons that
   * are there for other volumes than `daemonFor` says now are ended in order, so that no image is opened twice. Done
   * once, before any volume is opened: what is there later is this server's, whatever its records say at that moment.
   */
  async clearUnknown(holds: readonly Hold[], context: OpContext): Promise<void> {
    if (this.#isCleared || !existsSync(this.#folder)) return;
    const known = groupedBy(holds, ({ volume }) => this.#folderOf(volume.id));
    const deserted = readdirSync(this.#folder)
      .filter((name) => DAEMON_FOLDER.test(name))
      .map((name) => join(this.#folder, name))
      .filter((folder) => !known.has(folder));
    // All at once: a dead disk makes every daemon above it wait, and a start would take the sum of that.
    const cleared = await Promise.allSettled([
      ...deserted.map((at) => this.#locks.run(at, () => this.#clearDeserted(at, context))),
      ...Array.from(known, ([at, own]) =>
        this.#locks.run(at, () => this.#clearIn(at, own, context)),
      ),
    ]);
    for (const one of cleared) if (one.status === "rejected") throw one.reason;
    this.#isCleared = true;
  }

  async #clearDeserted(folder: string, context: OpContext): Promise<void> {
    const daemon = await this.#found(folder);
    if (daemon === undefined) await context.files.removeTree(folder);
    else await this.#end(daemon, context);
  }

  async #clearIn(folder: string, holds: readonly Hold[], context: OpContext): Promise<void> {
    const daemon = await this.#found(folder, IN_USE_GREETING_MS);
    if (daemon === undefined) return;
    const known = groupedBy(holds, ({ volume }) => this.#layout.namesOf(volume.id).node);
    for (const opened of await OpenVolume.in(daemon)) {
      const ids = known.get(opened.names.node)?.map(exportIDOf) ?? [];
      if (await this.#clear(opened, ids).catch(() => false)) continue;
      context.log.warn({ folder: basename(folder) }, "a storage daemon does not let go");
      await this.#kill(opened, context);
      return;
    }
    if ((await OpenVolume.in(daemon)).length === 0) await this.#end(daemon, context);
  }

  /** @returns whether what is not named is proven to be gone */
  async #clear(opened: OpenVolume, ids: readonly string[]): Promise<boolean> {
    for (const id of await opened.exports())
      if (!ids.includes(id) && !(await opened.removeExport(id))) return false;
    if ((await opened.exports()).length > 0) return true;
    const { node } = opened.names;
    for (const [id, { daemon, names }] of this.#volumes)
      if (daemon === opened.daemon && names.node === node) this.#volumes.delete(id);
    return opened.close(undefined);
  }

  watch(onLost: () => void): () => void {
    this.#listeners.add(onLost);
    return () => this.#listeners.delete(onLost);
  }

  #lost(): void {
    // Each exporter of the service hears of it; one call makes all exports of the service again.
    const [first] = this.#listeners;
    first?.();
  }

  /** Lets go of the daemons; they go on. */
  async release(): Promise<void> {
    this.#listeners.clear();
    await Promise.allSettled(this.#openings.values());
    await this.#locks.idle();
    for (const daemon of this.#daemons.values()) daemon.release();
    this.#daemons.clear();
    this.#volumes.clear();
  }
}

function groupedBy<T>(all: readonly T[], keyOf: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const one of all) groups.set(keyOf(one), [...(groups.get(keyOf(one)) ?? []), one]);
  return groups;
}
