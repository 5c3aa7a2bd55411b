/**
 * Volumes that come by NBD: a storage daemon of this host shows the export as a file, a loop device with direct I/O
 * the file as a disk, and a link below /dev/disk/by-id names it after the export, which is of one hold and never
 * of another. Everything is taken down in the opposite order.
 */
import { lstat, mkdir, readlink, realpath, symlink, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { StorageError } from "@libstorage/model";
import { placesOf } from "../../executor/executor.js";
import type { Attached, ExecutorContext, Limits } from "../../executor/executor.js";
import { withHostLock } from "../../host/host-lock.js";
import { usersOf } from "../block-use.js";
import { loopsOn } from "../loop.js";
import { Deadline } from "../transport.js";
import type { BlockTransport, ProvenDevice } from "../transport.js";
import {
  isShown,
  nbdFolderOf,
  placeOfExport,
  removeDaemon,
  refitDisk,
  showDisk,
} from "./daemon.js";
import type { DaemonPlace } from "./daemon.js";
import { credentialsFor, nbdDoorOf } from "./door.js";
import type { NbdDoor } from "./door.js";

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
      const place = placeOfExport(this.#context.libFolder, door.export);
      if (!(await isShown(place))) {
        // What a daemon that was killed has left stands in the way, and gives nothing but errors.
        await takeDown(this.#context, place, attached.volumeID, deadline);
        const credentials = await credentialsFor(this.#context.config, door);
        await this.#build(place, door, attached, credentials, deadline);
      } else await this.#showDevice(place, door, attached, deadline);
      await this.prove(attached);
    });
  }

  async #build(
    place: DaemonPlace,
    door: NbdDoor,
    attached: Attached,
    credentials: Awaited<ReturnType<typeof credentialsFor>>,
    deadline: Deadline,
  ): Promise<void> {
    try {
      await showDisk(this.#context, place, door, credentials, deadline);
      await this.#showDevice(place, door, attached, deadline);
    } catch (error) {
      const undoing = new Deadline({ signal: AbortSignal.timeout(60_000), timeoutMs: 60_000 });
      await takeDown(this.#context, place, attached.volumeID, undoing).catch(() => {});
      throw error;
    }
  }

  async #showDevice(
    { disk }: DaemonPlace,
    door: NbdDoor,
    { volumeID }: Attached,
    deadline: Deadline,
  ): Promise<void> {
    const { sys } = placesOf(this.#context);
    const limit = { signal: deadline.signal, timeoutMs: deadline.left(15_000) };
    if ((await loopsOn(sys, disk)).length === 0) {
      const readOnly = door.isReadOnly ? ["--read-only"] : [];
      const args = ["--find", "--direct-io=on", ...readOnly, "--", disk];
      await this.#context.exec("losetup", args, limit);
    }
    const [loop] = await loopsOn(sys, disk);
    if (loop === undefined)
      throw new StorageError(
        "failed-precondition",
        `volume ${volumeID} is not used: losetup made no loop device over ${disk}; are there free ones (losetup -f)?`,
        { volumeID, path: disk },
      );
    await makeLink(this.#linkOf(door), `../../${loop}`);
  }

  #linkOf({ link }: NbdDoor): string {
    return join(placesOf(this.#context).dev, link.slice("/dev/".length));
  }

  async prove(attached: Attached): Promise<ProvenDevice> {
    const door = nbdDoorOf(attached);
    const { sys } = placesOf(this.#context);
    const { volumeID } = attached;
    const place = placeOfExport(this.#context.libFolder, door.export);
    const path = await realpath(this.#linkOf(door)).catch(() => undefined);
    const loops = await loopsOn(sys, place.disk);
    const refused = (why: string): StorageError =>
      new StorageError(
        "failed-precondition",
        `volume ${volumeID} is not used: ${why}; unmount it and mount it again`,
        { volumeID, device: door.link },
      );
    if (path === undefined) throw refused(`${door.link} is not on this host`);
    if (!loops.includes(basename(path)))
      throw refused(`${door.link} leads to ${path}, which is another disk`);
    if (!(await isShown(place))) throw refused(`its storage daemon has ended, and ${path} fails`);
    return { path };
  }

  async rescan(attached: Attached, limits: Limits): Promise<void> {
    const door = nbdDoorOf(attached);
    const deadline = new Deadline(limits);
    await this.#lock(door, deadline, async () => {
      const place = placeOfExport(this.#context.libFolder, door.export);
      const { path } = await this.prove(attached);
      const limit = () => ({ signal: deadline.signal, timeoutMs: deadline.left(15_000) });
      // The daemon learns the size when it comes to the export anew, which it does with its next request.
      const read = [`if=${place.disk}`, "of=/dev/null", "iflag=direct", "bs=4096", "count=1"];
      await this.#context.exec("dd", read, limit());
      await refitDisk(place);
      // The kernel remembers a file's size for a second, and a loop device takes what it remembers.
      const look = ["--cached=never", "--format=%s", "--", place.disk];
      await this.#context.exec("stat", look, limit());
      await this.#context.exec("losetup", ["--set-capacity", path], limit());
    });
  }

  async disconnect(attached: Attached, limits: Limits): Promise<void> {
    const door = nbdDoorOf(attached);
    const deadline = new Deadline(limits);
    await mkdir(nbdFolderOf(this.#context.libFolder), { recursive: true, mode: 0o700 });
    await this.#lock(door, deadline, async () => {
      const place = placeOfExport(this.#context.libFolder, door.export);
      await takeDown(this.#context, place, attached.volumeID, deadline);
      await unlink(this.#linkOf(door)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOENT") throw error;
      });
    });
  }
}

export function lockOfExport(libFolder: string, name: string): string {
  return `${placeOfExport(libFolder, name).folder}.lock`;
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

/**
 * Device, file and daemon, in this order: each is flushed into the next. What is not there is fine.
 * @throws {StorageError} `failed-precondition` while the device is used
 */
export async function takeDown(
  context: ExecutorContext,
  place: DaemonPlace,
  volumeID: string,
  deadline: Deadline,
): Promise<void> {
  const { sys } = placesOf(context);
  const limit = () => ({ signal: deadline.signal, timeoutMs: deadline.left(60_000) });
  for (const loop of await loopsOn(sys, place.disk)) {
    const [user] = await usersOf(sys, loop);
    if (user !== undefined)
      throw new StorageError(
        "failed-precondition",
        `volume ${volumeID} cannot leave this host: ${user} uses /dev/${loop}; stop that and try again`,
        { volumeID, device: `/dev/${loop}`, user },
      );
    // Where the way is broken already nothing can be saved.
    if (await isShown(place)) await context.exec("sync", ["--", `/dev/${loop}`], limit());
    await context.exec("losetup", ["--detach", `/dev/${loop}`], limit());
  }
  await removeDaemon(context, place, deadline);
}
