/** NBD exports that were made for themselves: over TCP through the gate, or on a Unix socket of their own. */
import { StorageError } from "@libstorage/model";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import { doorOf } from "../../core/exporter.js";
import type { Door, DoorAbilities, DoorRecord, Hold, WantedDoor } from "../../core/exporter.js";
import type { Logger } from "../../core/log.js";
import type { VolumeDaemons } from "../qemu-storage-daemon/daemons.js";
import { needExport } from "../qemu-storage-daemon/features.js";
import { filterFor } from "../qemu-storage-daemon/filters.js";
import { exportIDOf, plainName } from "../qemu-storage-daemon/names.js";
import { checkWritable, refuseOptions } from "../qemu-storage-daemon/options.js";
import { socketPlaceOf } from "../qemu-storage-daemon/places.js";
import { DoorSockets } from "./door-sockets.js";
import type { Gate } from "./gate.js";
import { fieldsOf } from "./records.js";
import type { NbdFields } from "./records.js";

interface Parts {
  readonly service: string;
  readonly daemons: VolumeDaemons;
  readonly gate: Gate;
  /** For the sockets. */
  readonly folder: string;
  readonly tls: "required" | "none";
  readonly log: Logger;
}

export class NbdDoors implements DoorAbilities {
  readonly #parts: Parts;
  readonly #sockets: DoorSockets;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#sockets = new DoorSockets(parts.log);
  }

  async plan(volume: VolumeRecord, wanted: WantedDoor, context: OpContext): Promise<Door> {
    const { service, daemons, gate, folder, tls } = this.#parts;
    const { options, exportID, epoch } = wanted;
    const { transport = "tcp" } = options;
    refuseOptions("nbd", options, ["growable", "allowOther", "numQueues", "logicalBlockSize"]);
    if (transport === "unix") refuseOptions("nbd over unix", options, ["maxConnections", "allow"]);
    else refuseOptions("nbd over TCP", options, ["path"]);
    checkWritable(volume, options);
    daemons.check(volume);
    const { bitmaps = [], allocationDepth = false } = options;
    const needed = [
      ...(bitmaps.length > 0 ? ["bitmaps"] : []),
      ...(allocationDepth ? ["allocation-depth"] : []),
    ];
    needExport(await daemons.features(context), "nbd", needed);
    const name = options.name ?? `${plainName(`${service}.${volume.id}`)}.${epoch}`;
    if (transport === "unix") {
      const socket = socketPlaceOf(folder, `${exportID}.sock`, options);
      return {
        deviceName: `nbd+unix:///${name}?socket=${socket}`,
        fields: { socket, export: name, tls: "none" },
      };
    }
    const { host, port } = gate.address;
    const address = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    const scheme = tls === "required" ? "nbds" : "nbd";
    return {
      deviceName: `${scheme}://${address}/${name}`,
      fields: { address, export: name, tls } satisfies Partial<NbdFields>,
    };
  }

  async open(hold: Hold, door: DoorRecord, context: OpContext): Promise<void> {
    const { export: name, socket } = fieldsOf(hold);
    const { volume } = hold;
    const opened = await this.#parts.daemons.open(volume, context);
    await opened.add({
      id: exportIDOf(hold),
      type: "nbd",
      options: { name, ...this.#optionsOf(volume, door) },
      filter: filterFor(hold),
    });
    if (socket === undefined) this.#admit(hold, door, opened.socket);
    else if (this.#isDirect(door)) await this.#link(opened.socket, socket, context);
    else await this.#sockets.serve(socket, { name, daemon: opened.socket }, context);
  }

  /**
   * Whether its socket is the daemon's, through which every NBD export of the daemon can be named: only where that gives
   * no more than the door does, which is to write this one volume.
   */
  #isDirect({ isWritable }: DoorRecord): boolean {
    return isWritable && this.#parts.daemons.isForVolume;
  }

  #optionsOf({ id }: VolumeRecord, { isWritable, options }: DoorRecord) {
    const { writethrough, bitmaps = [], allocationDepth, description } = options;
    return {
      writable: isWritable,
      description: description ?? `volume ${id} of service ${this.#parts.service}`,
      ...(writethrough === true && { writethrough }),
      ...(bitmaps.length > 0 && { bitmaps }),
      ...(allocationDepth === true && { "allocation-depth": true }),
    };
  }

  #admit({ volume, attachment }: Hold, { options }: DoorRecord, socket: string): void {
    this.#parts.gate.admit(attachment.fields?.["export"] ?? "", {
      volumeID: volume.id,
      instanceID: attachment.instanceID.id,
      socket,
      clients: options.allow?.map((one) => (one.includes("=") ? one : one.toLowerCase())),
      maxConnections: options.maxConnections ?? 0,
    });
  }

  /** Another name for the daemon's socket. It is the record's, so what an earlier daemon left may go. */
  async #link(own: string, path: string, { files }: OpContext): Promise<void> {
    await files.unlink(path, { isSyncDeferred: true });
    await files.hardLink(own, path);
  }

  async update(hold: Hold, context: OpContext): Promise<void> {
    const door = doorOf(hold.attachment);
    if (door === undefined) return;
    const { socket } = fieldsOf(hold);
    if (socket !== undefined && (door.options.maxConnections !== undefined || door.options.allow))
      throw unlimited();
    const opened = await this.#parts.daemons.limit(hold, context);
    if (socket === undefined) this.#admit(hold, door, opened.socket);
  }

  /** Of a daemon's own socket nobody counts; it says whether there are clients by removing what has none. */
  async userOf(hold: Hold): Promise<string | undefined> {
    const { export: name, socket } = fieldsOf(hold);
    const { daemons, gate } = this.#parts;
    if (socket === undefined) {
      const mine = gate.connections.find(({ exportName }) => exportName === name);
      return (
        mine && `a client at ${mine.address}${mine.peer === mine.address ? "" : ` (${mine.peer})`}`
      );
    }
    if (this.#sockets.usersOf(socket) > 0) return `a client of ${socket}`;
    const opened = await daemons.running(hold.volume.id);
    const isGone = opened === undefined || (await opened.removeUnused(exportIDOf(hold)));
    return isGone ? undefined : `a client of ${socket}`;
  }

  async hide(hold: Hold, shutdown: boolean, context: OpContext): Promise<void> {
    const { export: name, socket } = fieldsOf(hold);
    const { daemons, gate } = this.#parts;
    if (socket === undefined) gate.hide(name);
    else {
      this.#sockets.hide(socket);
      await context.files.unlink(socket);
    }
    if (shutdown) await daemons.shutDown(hold);
  }

  /** Nobody gets in through a socket any more, and who is in is dropped, where this server knows them. */
  async shut(socket: string, { files }: OpContext): Promise<void> {
    await this.#sockets.close(socket);
    await files.unlink(socket);
  }

  async close(): Promise<void> {
    await this.#sockets.closeAll();
  }
}

function unlimited(): StorageError {
  return new StorageError(
    "invalid-argument",
    "an export over unix takes no maxConnections and no allow: whoever may open its socket is let in",
  );
}
