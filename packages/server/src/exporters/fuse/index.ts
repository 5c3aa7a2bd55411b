/** fuse: volumes as files of this host. */
import { accessSync, constants } from "node:fs";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { Ability, LiveImages, OpContext, VolumeRecord } from "../../core/driver.js";
import { defineExporter, doorOf, exporterOf, holdsOf, restoreEach } from "../../core/exporter.js";
import type {
  Door,
  DoorAbilities,
  Exporter,
  ExporterContext,
  Hold,
  Session,
  WantedDoor,
} from "../../core/exporter.js";
import { abilityOf, toolAbility } from "../qemu-storage-daemon/abilities.js";
import { VolumeDaemons } from "../qemu-storage-daemon/daemons.js";
import { needExport } from "../qemu-storage-daemon/features.js";
import { NoHosts } from "../qemu-storage-daemon/no-hosts.js";
import { checkWritable, refuseOptions } from "../qemu-storage-daemon/options.js";
import { folderFor, mountPointOf } from "../qemu-storage-daemon/places.js";
import { plainName } from "../qemu-storage-daemon/names.js";
import { FuseConfig } from "./config.js";
import { FuseFiles } from "./served.js";

const NAME = "fuse";

class FuseExporter extends NoHosts implements Exporter {
  readonly name = NAME;
  readonly sources = ["file", "block"] as const;
  readonly live: LiveImages;
  readonly #service: string;
  readonly #daemons: VolumeDaemons;
  readonly #folder: string;
  readonly #files: FuseFiles;
  #onLost: () => void = () => {};

  constructor(config: FuseConfig, service: string, daemons: VolumeDaemons, folder: string) {
    super(NAME);
    this.#service = service;
    this.#daemons = daemons;
    this.live = (...of) => daemons.live(...of);
    this.#folder = folder;
    this.#files = new FuseFiles(daemons, config.reconnectSeconds, () => this.#onLost());
  }

  readonly doors: DoorAbilities = {
    plan: (volume, wanted, context) => this.#plan(volume, wanted, context),
    update: async (hold, context) => {
      await this.#daemons.limit(hold, context);
    },
    userOf: async (hold) => this.#files.userOf(hold),
    hide: (hold, shutdown, context) => this.#hide(hold, shutdown, context),
  };

  async #hide(hold: Hold, shutdown: boolean, context: OpContext): Promise<void> {
    refuseGrowable(hold);
    if (shutdown) await this.#daemons.shutDown(hold);
    await this.#files.hide(hold, context);
  }

  async #plan(volume: VolumeRecord, wanted: WantedDoor, context: OpContext): Promise<Door> {
    const { options, exportID, epoch } = wanted;
    refuseOptions("fuse", options, [
      "name",
      "transport",
      "maxConnections",
      "allow",
      "bitmaps",
      "allocationDepth",
      "numQueues",
      "logicalBlockSize",
    ]);
    if (options.growable === true && options.writable !== true)
      throw new StorageError(
        "invalid-argument",
        'only what may be written can grow; ask for "writable" too, or leave "growable" out',
      );
    checkWritable(volume, options);
    if (options.growable === true) checkGrowable(volume);
    this.#daemons.check(volume);
    checkKernel();
    const needed = ["growable", ...(options.allowOther === undefined ? [] : ["allow-other"])];
    needExport(await this.#daemons.features(context), NAME, needed);
    const { path: file, isGiven } = mountPointOf(this.#folder, `${exportID}.img`, options);
    return {
      deviceName: file,
      fields: {
        file,
        export: `${plainName(`${this.#service}.${volume.id}`)}.${epoch}`,
        ...(isGiven && { mountpoint: "given" }),
      },
    };
  }

  async export(hold: Hold, context: OpContext): Promise<void> {
    const door = doorOf(hold.attachment);
    if (door !== undefined) await this.#files.open(hold, door, context);
  }

  async unexport(hold: Hold, context: OpContext): Promise<void> {
    await this.#files.remove(hold, context);
  }

  async expanded(volume: VolumeRecord, context: OpContext): Promise<void> {
    await this.#daemons.expanded(volume, context);
    for (const hold of holdsOf([volume]).filter(isOwn))
      await this.#files.resize(hold, volume.sizeBytes, context);
  }

  async restore(holds: readonly Hold[], context: OpContext, all: readonly Hold[] = holds) {
    await this.#daemons.clearUnknown(all, context);
    await this.#files.clearUnknown(all.filter(isOwn), this.#folder, context);
    return restoreEach(holds, (hold) => this.export(hold, context));
  }

  watch(onLost: () => void): () => void {
    this.#onLost = onLost;
    const stop = this.#daemons.watch(onLost);
    return () => {
      stop();
      this.#onLost = () => {};
    };
  }

  async sessions(volumes: readonly VolumeRecord[]): Promise<readonly Session[]> {
    return holdsOf(volumes)
      .filter(isOwn)
      .flatMap((hold) =>
        this.#files.users(hold).map((peer) => ({
          volumeID: hold.volume.id,
          instanceID: hold.attachment.instanceID.id,
          peer,
          state: "open",
        })),
      );
  }

  async abilities(context: OpContext): Promise<readonly Ability[]> {
    const tool = await toolAbility(context);
    if (!tool.available) return [tool];
    const able = await abilityOf("FUSE exports", `files in ${this.#folder}`, async () => {
      checkKernel();
      needExport(await this.#daemons.features(context), NAME);
    });
    return [tool, able];
  }

  /** Daemons go on, and files with them. */
  async close(): Promise<void> {
    this.#onLost = () => {};
    this.#files.release();
    await this.#daemons.release();
  }
}

function isOwn({ attachment }: Hold): boolean {
  return exporterOf(attachment) === NAME;
}

/** @throws {StorageError} `failed-precondition` for what would stay as large as it is, whatever was asked for */
function checkGrowable({ id, source }: VolumeRecord): void {
  const why =
    source.kind === "block"
      ? "is a block device, which only its driver makes larger"
      : source.kind === "file" && !source.format.startsWith("qcow2")
        ? "is a raw image, and QEMU keeps other writers out of a raw file in a way in which it cannot grow by a write"
        : undefined;
  if (why === undefined) return;
  throw new StorageError(
    "failed-precondition",
    `volume ${id} cannot be a file that may grow: it ${why}; leave "growable" out, and expand the volume when it is to be larger`,
    { volumeID: id },
  );
}

/** @throws {StorageError} `unimplemented`: its daemon is the volume's, which may end with the file's last user */
function refuseGrowable({ attachment }: Hold): void {
  if (doorOf(attachment)?.options.growable !== true) return;
  throw new StorageError(
    "unimplemented",
    `a file that may grow is removed with mode "safe" or "hard" only; end its users, or remove it with "hard"`,
  );
}

/** @throws {StorageError} `failed-precondition` where this server cannot mount by FUSE */
function checkKernel(): void {
  try {
    accessSync("/dev/fuse", constants.R_OK | constants.W_OK);
  } catch (error) {
    throw new StorageError(
      "failed-precondition",
      `volumes cannot be exported as files: this host's kernel has no FUSE for this server (${(error as Error).message}); load the module fuse, and run the server as a user who may open /dev/fuse`,
      {},
      { cause: error },
    );
  }
}

export const fuse = defineExporter({
  name: NAME,
  config: FuseConfig,
  async open(config, context: ExporterContext) {
    const daemons = await VolumeDaemons.open(NAME, config, context);
    const folder = await folderFor(config.folder ?? join(context.libFolder, NAME), context);
    return new FuseExporter(config, context.service, daemons, folder);
  },
});
