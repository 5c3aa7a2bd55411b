/**
 * nbd: images and block devices as NBD, for hosts that attach them and for whoever an export is made for. A
 * storage daemon serves them on a Unix socket; over TCP the gate lets clients through to them.
 */
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import { defineExporter, doorOf, restoreEach } from "../../core/exporter.js";
import type { Door, Exporter, Hold, NotRestored, Session, Wanted } from "../../core/exporter.js";
import type { Ability, LiveImages, OpContext, VolumeRecord } from "../../core/driver.js";
import type { Logger } from "../../core/log.js";
import { VolumeDaemons } from "../qemu-storage-daemon/daemons.js";
import { exportIDOf, plainName } from "../qemu-storage-daemon/names.js";
import { isReadOnly } from "../qemu-storage-daemon/nodes.js";
import { isWrittenThrough } from "../qemu-storage-daemon/options.js";
import { folderFor } from "../qemu-storage-daemon/places.js";
import { toolAbility } from "../qemu-storage-daemon/abilities.js";
import { ownerOf, serverID } from "../server-id.js";
import { NbdConfig } from "./config.js";
import { NbdDoors } from "./doors.js";
import { Gate, isLoopback } from "./gate.js";
import { fieldsOf } from "./records.js";
import type { NbdFields } from "./records.js";

const NAME = "nbd";

class NbdExporter implements Exporter {
  readonly name = NAME;
  readonly sources = ["file", "block"] as const;
  readonly live: LiveImages;
  readonly doors: NbdDoors;
  readonly #config: NbdConfig;
  readonly #service: string;
  readonly #owner: string;
  readonly #daemons: VolumeDaemons;
  readonly #gate: Gate;

  constructor(
    config: NbdConfig,
    { service, owner }: { readonly service: string; readonly owner: string },
    daemons: VolumeDaemons,
    gate: Gate,
    { folder, log }: { readonly folder: string; readonly log: Logger },
  ) {
    this.#config = config;
    this.#service = service;
    this.#owner = owner;
    this.#daemons = daemons;
    this.live = (...of) => daemons.live(...of);
    this.#gate = gate;
    const tls = config.tls === undefined && config.pskFile === undefined ? "none" : "required";
    this.doors = new NbdDoors({ service, daemons, gate, folder, tls, log });
  }

  async plan(volume: VolumeRecord, { holder, facts, epoch }: Wanted): Promise<Door> {
    // What cannot be opened is said before anything is written down.
    this.#daemons.check(volume);
    const { host, port } = this.#gate.address;
    const address = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    // Its device on the holder is named after it, and another server may have a service and a volume of these names.
    const name = `${plainName(`${this.#service}.${volume.id}`)}.${this.#owner}.${epoch}`;
    const hasTls = this.#config.tls !== undefined || this.#config.pskFile !== undefined;
    const fields: NbdFields = {
      address,
      export: name,
      tls: hasTls ? "required" : "none",
      access: isReadOnly(volume.source) ? "ro" : "rw",
      clients: [holder.id, facts.hostName, ...(facts.addresses ?? [])].join(","),
    };
    return { deviceName: `/dev/disk/by-id/nbd-${name}`, fields: fields as Record<string, string> };
  }

  async export(hold: Hold, context: OpContext): Promise<void> {
    const door = doorOf(hold.attachment);
    if (door !== undefined) {
      await this.doors.open(hold, door, context);
      return;
    }
    const { volume, attachment } = hold;
    const fields = fieldsOf(hold);
    const opened = await this.#daemons.open(volume, context);
    const options = {
      name: fields.export,
      writable: fields.access === "rw",
      description: `volume ${volume.id} of service ${this.#service}`,
      writethrough: isWrittenThrough(volume, this.#config.writethrough),
    };
    // Our client waits and comes again.
    await opened.add({ id: exportIDOf(hold), type: NAME, options, isWaitedFor: true });
    const clients = fields.clients.toLowerCase().split(",");
    this.#gate.admit(fields.export, {
      volumeID: volume.id,
      instanceID: attachment.instanceID.id,
      socket: opened.socket,
      clients: [attachment.instanceID.id.toLowerCase(), ...clients],
      maxConnections: 0,
    });
  }

  async unexport(hold: Hold, context: OpContext): Promise<void> {
    const { export: name, socket } = fieldsOf(hold);
    await this.#gate.expel(name);
    if (socket !== undefined) await this.doors.shut(socket, context);
    await this.#daemons.withdraw(hold.volume, exportIDOf(hold), context);
  }

  async expanded(volume: VolumeRecord, context: OpContext): Promise<void> {
    await this.#daemons.expanded(volume, context);
  }

  async restore(
    holds: readonly Hold[],
    context: OpContext,
    all: readonly Hold[] = holds,
  ): Promise<readonly NotRestored[]> {
    await this.#daemons.clearUnknown(all, context);
    return restoreEach(holds, (hold) => this.export(hold, context));
  }

  watch(onLost: () => void): () => void {
    return this.#daemons.watch(onLost);
  }

  async sessions(volumes: readonly VolumeRecord[]): Promise<readonly Session[]> {
    const ids = new Set(volumes.map(({ id }) => id));
    return this.#gate.connections
      .filter(({ volumeID }) => ids.has(volumeID))
      .map(({ volumeID, instanceID, peer, address }) => ({
        volumeID,
        instanceID,
        peer,
        address,
        state: "connected",
      }));
  }

  async abilities(context: OpContext): Promise<readonly Ability[]> {
    const { host, port } = this.#gate.address;
    const { tls, pskFile } = this.#config;
    const how = [
      ...(tls === undefined ? [] : ["client certificates"]),
      ...(pskFile === undefined ? [] : ["pre-shared keys"]),
    ];
    return [
      await toolAbility(context),
      { name: "NBD", available: true, detail: `served on ${host}:${port}` },
      {
        name: "NBD over TLS",
        available: how.length > 0,
        detail:
          how.length > 0
            ? `required, with ${how.join(" or ")}`
            : "off: holders are known by address",
      },
    ];
  }

  /** Daemons go on; clients come again when the next server serves. */
  async close(): Promise<void> {
    await this.#gate.close();
    await this.doors.close();
    await this.#daemons.release();
  }
}

/** @throws {StorageError} for an address that others can reach, without a word about who may */
function checkListen({ listen: { host }, tls, pskFile, insecure }: NbdConfig): void {
  if (isLoopback(host) || tls !== undefined || pskFile !== undefined || insecure) return;
  throw new StorageError(
    "failed-precondition",
    `NBD on ${host} would let in whoever has the right address; set "tls", or "insecure: true" when the network is yours alone`,
    { listen: host },
  );
}

function checkAddress({ listen: { host }, address }: NbdConfig): void {
  if ((host !== "0.0.0.0" && host !== "::") || address !== undefined) return;
  throw new StorageError(
    "failed-precondition",
    `holders cannot be told to connect to ${host}; set "address" to one of this host's addresses`,
    { listen: host },
  );
}

export const nbd = defineExporter({
  name: NAME,
  config: NbdConfig,
  async open(config, context) {
    checkListen(config);
    checkAddress(config);
    const daemons = await VolumeDaemons.open(NAME, config, context);
    const folder = await folderFor(config.folder ?? join(context.libFolder, NAME), context);
    const gate = await Gate.open(config, context.log);
    const owner = ownerOf(await serverID(context), context.service);
    return new NbdExporter(config, { service: context.service, owner }, daemons, gate, {
      folder,
      log: context.log,
    });
  },
});
