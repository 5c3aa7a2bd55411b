/** vhost-user-blk: volumes as disks of virtual machines on this host, over shared memory and a Unix socket. */
import { join } from "node:path";
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
import { filterFor } from "../qemu-storage-daemon/filters.js";
import { exportIDOf, plainName } from "../qemu-storage-daemon/names.js";
import { NoHosts } from "../qemu-storage-daemon/no-hosts.js";
import { checkWritable, refuseOptions } from "../qemu-storage-daemon/options.js";
import { folderFor, socketPlaceOf } from "../qemu-storage-daemon/places.js";
import { VhostUserBlkConfig } from "./config.js";
import { connectionsOf } from "./connections.js";

const NAME = "vhost-user-blk";

class VhostUserBlkExporter extends NoHosts implements Exporter {
  readonly name = NAME;
  readonly sources = ["file", "block"] as const;
  readonly live: LiveImages;
  readonly #service: string;
  readonly #daemons: VolumeDaemons;
  readonly #folder: string;

  constructor(service: string, daemons: VolumeDaemons, folder: string) {
    super(NAME);
    this.#service = service;
    this.#daemons = daemons;
    this.live = (...of) => daemons.live(...of);
    this.#folder = folder;
  }

  readonly doors: DoorAbilities = {
    plan: (volume, wanted, context) => this.#plan(volume, wanted, context),
    update: async (hold, context) => {
      await this.#daemons.limit(hold, context);
    },
    userOf: async (hold) => this.#userOf(hold),
    hide: (hold, shutdown, context) => this.#hide(hold, shutdown, context),
  };

  async #hide(hold: Hold, shutdown: boolean, context: OpContext): Promise<void> {
    await context.files.unlink(socketOf(hold));
    if (shutdown) await this.#daemons.shutDown(hold);
  }

  async #plan(volume: VolumeRecord, wanted: WantedDoor, context: OpContext): Promise<Door> {
    const { options, exportID, epoch } = wanted;
    refuseOptions(NAME, options, [
      "name",
      "transport",
      "description",
      "maxConnections",
      "allow",
      "bitmaps",
      "allocationDepth",
      "growable",
      "allowOther",
    ]);
    checkWritable(volume, options);
    this.#daemons.check(volume);
    needExport(await this.#daemons.features(context), NAME, ["num-queues", "logical-block-size"]);
    const socket = socketPlaceOf(this.#folder, `${exportID}.sock`, options);
    return {
      deviceName: socket,
      fields: { socket, export: `${plainName(`${this.#service}.${volume.id}`)}.${epoch}` },
    };
  }

  /** The daemon's own socket of an export, to which the export's path is another name. */
  #ownSocket(hold: Hold): string {
    return this.#daemons.socketOf(hold.volume.id, exportIDOf(hold));
  }

  async export(hold: Hold, context: OpContext): Promise<void> {
    const door = doorOf(hold.attachment);
    if (door === undefined) return;
    const { writethrough, numQueues, logicalBlockSize } = door.options;
    const opened = await this.#daemons.open(hold.volume, context);
    const own = this.#ownSocket(hold);
    await opened.add({
      id: exportIDOf(hold),
      type: NAME,
      options: {
        addr: { type: "unix", path: own },
        writable: door.isWritable,
        // QEMU tells guests of a disk without a cache, so they flush nothing. @see virtio, VIRTIO_BLK_F_CONFIG_WCE
        writethrough: door.isWritable && (writethrough ?? true),
        ...(numQueues !== undefined && { "num-queues": numQueues }),
        ...(logicalBlockSize !== undefined && { "logical-block-size": logicalBlockSize }),
      },
      filter: filterFor(hold),
    });
    const { files } = context;
    // The name is the record's: only an earlier daemon's socket can have it.
    await files.unlink(socketOf(hold), { isSyncDeferred: true });
    await files.hardLink(own, socketOf(hold));
  }

  async unexport(hold: Hold, context: OpContext): Promise<void> {
    await context.files.unlink(socketOf(hold));
    await this.#daemons.withdraw(hold.volume, exportIDOf(hold), context);
    await context.files.unlink(this.#ownSocket(hold), { isSyncDeferred: true });
  }

  async expanded(volume: VolumeRecord, context: OpContext): Promise<void> {
    await this.#daemons.expanded(volume, context);
  }

  async restore(holds: readonly Hold[], context: OpContext, all: readonly Hold[] = holds) {
    await this.#daemons.clearUnknown(all, context);
    return restoreEach(holds, (hold) => this.export(hold, context));
  }

  watch(onLost: () => void): () => void {
    return this.#daemons.watch(onLost);
  }

  async #userOf(hold: Hold): Promise<string | undefined> {
    const opened = await this.#daemons.running(hold.volume.id);
    const pid = opened?.daemon.pid;
    if (pid === undefined) return undefined;
    const { known, foreign } = connectionsOf(
      pid,
      this.#ownSocket(hold),
      this.#daemons.neighbours(),
    );
    if (known > 0) return `a virtual machine at ${socketOf(hold)}`;
    return foreign > 0 ? "a process in another network namespace" : undefined;
  }

  async sessions(volumes: readonly VolumeRecord[]): Promise<readonly Session[]> {
    const found: Session[] = [];
    for (const hold of holdsOf(volumes)) {
      if (exporterOf(hold.attachment) !== NAME) continue;
      const peer = await this.#userOf(hold).catch(() => undefined);
      const instanceID = hold.attachment.instanceID.id;
      if (peer !== undefined)
        found.push({ volumeID: hold.volume.id, instanceID, peer, state: "connected" });
    }
    return found;
  }

  async abilities(context: OpContext): Promise<readonly Ability[]> {
    const tool = await toolAbility(context);
    if (!tool.available) return [tool];
    const able = await abilityOf(`${NAME} exports`, `sockets in ${this.#folder}`, async () =>
      needExport(await this.#daemons.features(context), NAME),
    );
    return [tool, able];
  }

  async close(): Promise<void> {
    await this.#daemons.release();
  }
}

function socketOf({ attachment }: Hold): string {
  return attachment.fields?.["socket"] ?? "";
}

export const vhostUserBlk = defineExporter({
  name: NAME,
  config: VhostUserBlkConfig,
  async open(config, context: ExporterContext) {
    const daemons = await VolumeDaemons.open(NAME, config, context);
    const folder = await folderFor(config.folder ?? join(context.libFolder, "vhost"), context);
    return new VhostUserBlkExporter(context.service, daemons, folder);
  },
});
