/** The storage daemons of one service, one for each volume that is exported, shared by its exporters. */
import { createHash } from "node:crypto";
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { StorageError, parseSize } from "@libstorage/model";
import type { OpContext, Source, VolumeRecord } from "../../core/driver.js";
import { doorOf } from "../../core/exporter.js";
import type { ExporterContext, Hold } from "../../core/exporter.js";
import type { LiveImage } from "../../core/live-image.js";
import type { DaemonConfig } from "./config.js";
import { Daemon } from "./daemon.js";
import { probeFeatures } from "./features.js";
import type { Features } from "./features.js";
import type { Filter } from "./filters.js";
import { LiveVolume } from "./live.js";
import { isEncrypted, isReadOnly, nodesOf } from "./nodes.js";
import { killIn, pidIn } from "./process.js";
import type { Confinement } from "./process.js";

/** Names of nodes have at most 31 characters. */
export function short(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** The name in a hold's record that no other hold ever has. */
export function exportNameOf({ attachment }: Hold): string {
  return attachment.fields?.["export"] ?? "";
}

/** The daemon's id of an export. */
export function exportIDOf(hold: Hold): string {
  return `e-${short(exportNameOf(hold))}`;
}

/** What a hold's requests pass. */
export function filterFor({ volume, attachment }: Hold): Filter {
  return { throttle: doorOf(attachment)?.options.throttle, sizeBytes: volume.sizeBytes };
}

export class VolumeDaemons {
  readonly #folder: string;
  readonly #config: DaemonConfig;
  readonly #daemons = new Map<string, Promise<Daemon>>();
  readonly #expected = new Set<Daemon>();
  readonly #listeners = new Set<() => void>();
  #features: Promise<Features> | undefined;

  constructor(folder: string, config: DaemonConfig) {
    this.#folder = folder;
    this.#config = config;
  }

  /** Those of the exporter's service, which the exporters of one folder share. */
  static async open(config: DaemonConfig, context: ExporterContext): Promise<VolumeDaemons> {
    const parent = config.daemonFolder ?? join(context.libFolder, "qsd");
    await context.files.makeFolder(parent);
    // Daemons that no record of this service names are ended, so it has a folder of its own.
    const folder = join(parent, short(context.service).slice(0, 8));
    await context.files.makeFolder(folder);
    const make = (): VolumeDaemons => new VolumeDaemons(folder, config);
    const key = JSON.stringify([folder, config.encryptionKeyFile, config.daemonUser]);
    return context.shared === undefined ? make() : context.shared(key, make);
  }

  get confinement(): Confinement {
    const { daemonUser: user, daemonMemory } = this.#config;
    return {
      user,
      memoryBytes: daemonMemory === undefined ? undefined : parseSize(daemonMemory),
    };
  }

  /** Where they have their folders. */
  get folder(): string {
    return this.#folder;
  }

  folderOf(volumeID: string): string {
    return join(this.#folder, short(volumeID));
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

  /** The volume's daemon, started if it does not run. */
  open({ id, source }: VolumeRecord, context: OpContext): Promise<Daemon> {
    const known = this.#daemons.get(id);
    if (known !== undefined) return known;
    const opening = Daemon.open(this.folderOf(id), this.#opening(source), context);
    const forget = (): void => {
      if (this.#daemons.get(id) === opening) this.#daemons.delete(id);
    };
    const watched = (daemon: Daemon): void => {
      void daemon.closed.then(() => {
        forget();
        if (!this.#expected.delete(daemon)) this.#lost();
      });
    };
    opening.then(watched, forget);
    this.#daemons.set(id, opening);
    return opening;
  }

  #opening(source: Source) {
    return {
      nodes: (name: string) => nodesOf(source, name, !isReadOnly(source)),
      keyFile: isEncrypted(source) ? this.#config.encryptionKeyFile : undefined,
      confinement: {
        ...this.confinement,
        imageFolder: source.kind === "file" ? dirname(source.path) : undefined,
      },
    };
  }

  /** The volume's daemon if it runs. */
  async known(volumeID: string): Promise<Daemon | undefined> {
    return this.#daemons.get(volumeID)?.catch(() => undefined);
  }

  /** Brings an export that is in use to the limits of its record. */
  async limit(hold: Hold, context: OpContext): Promise<Daemon> {
    const daemon = await this.open(hold.volume, context);
    await daemon.setFilter(exportIDOf(hold), filterFor(hold));
    return daemon;
  }

  /** Every further request of an export fails. */
  async shutDown(hold: Hold): Promise<void> {
    const daemon = await this.known(hold.volume.id);
    await daemon?.setFilter(exportIDOf(hold), { ...filterFor(hold), isShutDown: true });
  }

  /** The image of a volume that is exported. Without the volume's lock a daemon is not started: it might stay. */
  async live(
    volume: VolumeRecord,
    isLocked: boolean,
    context: OpContext,
  ): Promise<LiveImage | undefined> {
    const features = await this.features(context);
    const daemon = isLocked ? await this.open(volume, context) : await this.known(volume.id);
    return daemon && new LiveVolume(volume, daemon, features, context);
  }

  /** Makes the new size of a device known, which has grown by itself; images are grown by their daemon. */
  async expanded({ id, source, sizeBytes }: VolumeRecord, context: OpContext): Promise<void> {
    if (source.kind !== "block") return;
    const daemon = await this.known(id);
    if (daemon === undefined || daemon.fitted === sizeBytes) return;
    await daemon.resize(sizeBytes).catch((error: unknown) => {
      // It has its size, and who is in the way sees it when they come anew.
      context.log.warn({ error, volumeID: id }, "exports have the old size");
    });
  }

  async #found(volumeID: string): Promise<Daemon | undefined> {
    return (await this.known(volumeID)) ?? Daemon.find(this.folderOf(volumeID));
  }

  /**
   * Removes an export; answers when nobody can write through it any more. With its last export the daemon goes.
   */
  async withdraw(volumeID: string, exportID: string, context: OpContext): Promise<void> {
    const daemon = await this.#found(volumeID);
    // Without a process there is nobody who could write.
    if (daemon === undefined) return;
    this.#expected.add(daemon);
    const isProven = await daemon.removeExport(exportID).catch(() => false);
    const left = isProven ? await daemon.exports().catch(() => []) : [];
    if (isProven && left.length > 0) {
      this.#expected.delete(daemon);
      return;
    }
    // Its last export, or one that does not end: then the end of the process is the proof.
    if (!isProven) await killIn(this.folderOf(volumeID));
    this.#daemons.delete(volumeID);
    await daemon.stop(context);
    if (!isProven) this.#lost();
  }

  /** Ends daemons of volumes that nobody holds, and exports that no record names: what a crash left. */
  async clearUnknown(holds: readonly Hold[], context: OpContext): Promise<void> {
    if (!existsSync(this.#folder)) return;
    const known = new Map<string, Set<string>>();
    for (const hold of holds) {
      const folder = this.folderOf(hold.volume.id);
      const ids = known.get(folder) ?? new Set();
      known.set(folder, ids.add(exportIDOf(hold)));
    }
    for (const name of readdirSync(this.#folder)) {
      const folder = join(this.#folder, name);
      if (known.has(folder) || !/^(?:[\da-f]{16}|probe)$/.test(name)) continue;
      if (pidIn(folder) !== undefined) await killIn(folder);
      await context.files.removeTree(folder);
    }
    for (const { volume } of holds) {
      const daemon = await this.#found(volume.id);
      const ids = known.get(this.folderOf(volume.id));
      for (const id of (await daemon?.exports()) ?? [])
        if (ids?.has(id) !== true) await daemon?.removeExport(id);
      if (daemon !== undefined && !this.#daemons.has(volume.id)) daemon.release();
    }
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
    for (const opening of this.#daemons.values())
      await opening.then((daemon) => daemon.release()).catch(() => {});
    this.#daemons.clear();
  }
}
