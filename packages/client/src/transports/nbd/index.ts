/**
 * Volumes that come by NBD: a storage daemon of this host is connected to the export, a device of the kernel is over
 * the daemon (ways.ts), and a link below /dev/disk/by-id names the device after the export, which is of one hold and
 * never of another. Everything is taken down in the opposite order.
 */
import { lstat, mkdir, readlink, realpath, symlink, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { StorageError } from "@libstorage/model";
import { placesOf } from "../../executor/executor.js";
import type { Attached, ExecutorContext, Limits } from "../../executor/executor.js";
import { withHostLock } from "../../host/host-lock.js";
import { usersOf } from "../block-use.js";
import { Deadline } from "../transport.js";
import type { BlockTransport, ProvenDevice } from "../transport.js";
import { checkServerAt, startDaemon } from "./daemon.js";
import { credentialsFor, nbdDoorOf } from "./door.js";
import type { NbdDoor } from "./door.js";
import { lockOfExport, nbdFolderOf, placeOfExport } from "./place.js";
import type { Place } from "./place.js";
import { WayClosed } from "./way.js";
import type { Way } from "./way.js";
import { devicesAt, takeDown, wayAt, waysFor } from "./ways.js";
import type { PlaceDevice } from "./ways.js";

export class NbdTransport implements BlockTransport {
  readonly connects = true;
  readonly #context: ExecutorContext;

  constructor(context: ExecutorContext) {
    this.#context = context;
  }

  #lock<T>(door: NbdDoor, deadline: Deadline, act: () => Promise<T>): Promise<T> {
    const { exec, libFolder } = this.#context;
    const file = lockOfExport(libFolder, door.export);
    const { signal } = deadline;
    return withHostLock(exec, file, { waitMs: deadline.left(), signal }, act);
  }

  async connect(attached: Attached, limits: Limits): Promise<void> {
    const door = nbdDoorOf(attached);
    const deadline = new Deadline(limits);
    if (!this.#context.isRoot)
      throw new StorageError(
        "permission-denied",
        `volume ${attached.volumeID} comes by NBD, which only root can connect`,
        { volumeID: attached.volumeID },
      );
    await mkdir(nbdFolderOf(this.#context.libFolder), { recursive: true, mode: 0o700 });
    await this.#lock(door, deadline, async () => {
      const place = this.#placeOf(door);
      const way = await wayAt(this.#context, place);
      if (way === undefined) await this.#build(place, door, attached, deadline);
      else await this.#showDevice(place, door, way, deadline);
      await this.prove(attached);
    });
  }

  /** By the first way that this host can go. */
  async #build(
    place: Place,
    door: NbdDoor,
    { volumeID }: Attached,
    deadline: Deadline,
  ): Promise<void> {
    // What a daemon that was killed has left stands in the way, and gives nothing but errors.
    await takeDown(this.#context, place, volumeID, deadline);
    const credentials = await credentialsFor(this.#context.config, door);
    const ways = await waysFor(this.#context, deadline);
    for (const way of ways)
      try {
        await startDaemon(this.#context, place, door, way, credentials, deadline);
        await this.#showDevice(place, door, way, deadline);
        return;
      } catch (error) {
        const undoing = new Deadline({ signal: AbortSignal.timeout(60_000), timeoutMs: 60_000 });
        await takeDown(this.#context, place, volumeID, undoing).catch(() => {});
        if (!(error instanceof WayClosed) || way === ways.at(-1)) throw error;
        this.#context.warn?.(`${error.message}. It is shown by FUSE instead`);
      }
  }

  async #showDevice(place: Place, door: NbdDoor, way: Way, deadline: Deadline): Promise<void> {
    if ((await way.devices(place)).length === 0) await way.up(place, door, deadline);
    const [device] = await way.devices(place);
    if (device === undefined)
      throw new StorageError(
        "failed-precondition",
        `the disk ${door.export} has no device here, though one was made over ${place.folder}; did somebody remove it? Try again`,
        { export: door.export, folder: place.folder },
      );
    await makeLink(this.#linkOf(door), `../../${device}`);
  }

  #placeOf(door: NbdDoor): Place {
    const place = placeOfExport(this.#context.libFolder, door.export);
    checkServerAt(place, door);
    return place;
  }

  #linkOf({ link }: NbdDoor): string {
    return join(placesOf(this.#context).dev, link.slice("/dev/".length));
  }

  async prove(attached: Attached): Promise<ProvenDevice> {
    const { device } = await this.#proven(attached);
    return { path: `/dev/${device}` };
  }

  async #proven(attached: Attached): Promise<PlaceDevice> {
    const door = nbdDoorOf(attached);
    const { volumeID } = attached;
    const place = this.#placeOf(door);
    const path = await realpath(this.#linkOf(door)).catch(() => undefined);
    const refused = (why: string): StorageError =>
      new StorageError(
        "failed-precondition",
        `volume ${volumeID} is not used: ${why}; unmount it and mount it again`,
        { volumeID, device: door.link },
      );
    if (path === undefined) throw refused(`${door.link} is not on this host`);
    const devices = await devicesAt(this.#context, place);
    const found = devices.find(({ device }) => device === basename(path));
    if (found === undefined) throw refused(`${door.link} leads to ${path}, which is another disk`);
    if ((await wayAt(this.#context, place)) === undefined)
      throw refused(`its storage daemon has ended, and ${path} fails`);
    return found;
  }

  async rescan(attached: Attached, limits: Limits): Promise<void> {
    const door = nbdDoorOf(attached);
    const deadline = new Deadline(limits);
    const { volumeID } = attached;
    await this.#lock(door, deadline, async () => {
      const place = this.#placeOf(door);
      const { device, way } = await this.#proven(attached);
      if (await way.grow(place, door, device, deadline)) return;
      const [user] = await usersOf(placesOf(this.#context).sys, device);
      if (user !== undefined)
        throw new StorageError(
          "failed-precondition",
          `volume ${volumeID} has grown on the server, and the kernel's NBD client gives /dev/${device} its new size with a new connection only, while ${user} uses it; unmount the volume and mount it again`,
          { volumeID, device: `/dev/${device}`, user },
        );
      await this.#build(place, door, attached, deadline);
    });
  }

  async disconnect(attached: Attached, limits: Limits): Promise<void> {
    const door = nbdDoorOf(attached);
    const deadline = new Deadline(limits);
    await mkdir(nbdFolderOf(this.#context.libFolder), { recursive: true, mode: 0o700 });
    await this.#lock(door, deadline, async () => {
      const place = this.#placeOf(door);
      await takeDown(this.#context, place, attached.volumeID, deadline);
      await unlink(this.#linkOf(door)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
      });
    });
  }
}

/** Replaces a link of ours that leads to a number of an earlier day. */
async function makeLink(link: string, target: string): Promise<void> {
  await mkdir(dirname(link), { recursive: true });
  if ((await readlink(link).catch(() => undefined)) === target) return;
  const there = await lstat(link).catch(() => undefined);
  if (there !== undefined && !there.isSymbolicLink())
    throw new StorageError(
      "failed-precondition",
      `${link} is no link, and stands where the volume's would be; remove it`,
      { path: link },
    );
  if (there !== undefined) await unlink(link);
  await symlink(target, link);
}
