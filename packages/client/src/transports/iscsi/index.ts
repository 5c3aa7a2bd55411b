/**
 * Volumes that come over iSCSI. The way in: login to the given portals of the one target, a look for the one
 * LUN, the link below /dev/disk/by-id, and the proof that the device behind it is the volume. Every step may
 * find that it was done before; all of them are done under a lock of the target, since several volumes may
 * share its session.
 */
import { realpath } from "node:fs/promises";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { placesOf } from "../../executor/executor.js";
import type { Attached, ExecutorContext, Limits, Places } from "../../executor/executor.js";
import { Deadline } from "../transport.js";
import type { BlockTransport, ProvenDevice } from "../transport.js";
import { iscsiDoorOf } from "./door.js";
import type { IscsiDoor } from "./door.js";
import { lookForLun, proveDisk, removeLun, rescanDisk } from "./lun.js";
import { logInto, logOut, targetLock } from "./login.js";
import { mapAt, mapOver, multipathRuns, takePath } from "./multipath.js";
import { sessionsOf } from "./sessions.js";
import type { IscsiSession } from "./sessions.js";

const LOOK_EVERY_MS = 100;

export class IscsiTransport implements BlockTransport {
  readonly connects = true;
  readonly #context: ExecutorContext;
  readonly #places: Places;

  constructor(context: ExecutorContext) {
    this.#context = context;
    this.#places = placesOf(context);
  }

  async connect(attached: Attached, limits: Limits): Promise<void> {
    const door = iscsiDoorOf(attached);
    const deadline = new Deadline(limits);
    await targetLock(this.#context, door, deadline, async () => {
      const several = door.portals.length > 1 && (await this.#hasMultipath(door, deadline));
      const sessions = await logInto(this.#context, door, several, deadline);
      const disks: string[] = [];
      for (const session of sessions)
        disks.push(await lookForLun(this.#context, session, door, attached.volumeID, deadline));
      if (several && disks.length > 1) await this.#joinPaths(disks, deadline);
      await this.#waitForLink(attached, door, several && disks.length > 1, deadline);
    });
  }

  async #hasMultipath({ portals, iqn }: IscsiDoor, deadline: Deadline): Promise<boolean> {
    const { exec, warn } = this.#context;
    if (await multipathRuns(exec, deadline.signal)) return true;
    warn?.(
      `${iqn} has ${portals.length} portals, but multipathd does not run on this host: only one of them is used, and its loss stops the volume; install multipath-tools`,
    );
    return false;
  }

  async #joinPaths(disks: readonly string[], deadline: Deadline): Promise<void> {
    const { exec } = this.#context;
    for (const disk of disks) {
      if ((await mapOver(this.#places.sys, disk)) !== undefined) continue;
      const limit = { signal: deadline.signal, timeoutMs: deadline.left(15_000) };
      await takePath(exec, `/dev/${disk}`, limit);
    }
  }

  /** Until the link leads to the volume: to the map, when several paths are to be joined. */
  async #waitForLink(
    attached: Attached,
    door: IscsiDoor,
    isMap: boolean,
    deadline: Deadline,
  ): Promise<void> {
    for (;;) {
      const path = await this.#follow(door);
      const isThere = path !== undefined && (!isMap || /^dm-\d+$/.test(basename(path)));
      if (isThere) {
        await this.prove(attached, deadline.signal);
        return;
      }
      if (deadline.isOver)
        throw new StorageError(
          "deadline-exceeded",
          `${door.link} did not appear on this host${path === undefined ? "" : ` as a map of multipath (it is ${path})`}, though its target is logged in; does udev run${isMap ? ", and what says multipath -ll" : ""}?`,
          { volumeID: attached.volumeID, device: door.link },
        );
      await sleep(LOOK_EVERY_MS);
    }
  }

  async #follow({ link }: IscsiDoor): Promise<string | undefined> {
    const at = join(this.#places.dev, link.slice("/dev/".length));
    return realpath(at).catch(() => undefined);
  }

  async prove(attached: Attached, signal: AbortSignal): Promise<ProvenDevice> {
    const door = iscsiDoorOf(attached);
    const path = await this.#follow(door);
    if (path === undefined)
      throw new StorageError(
        "failed-precondition",
        `volume ${attached.volumeID} is not used: ${door.link} is not on this host`,
        { volumeID: attached.volumeID, device: door.link },
      );
    const name = basename(path);
    const map = await mapAt(this.#places.sys, name);
    const disks = map === undefined ? [name] : map.paths;
    if (disks.length === 0)
      throw new StorageError(
        "unavailable",
        `volume ${attached.volumeID} is not used: its map ${name} has no path left; look with multipath -ll`,
        { volumeID: attached.volumeID, device: door.link },
      );
    for (const disk of disks) await proveDisk(this.#context, disk, door, attached.volumeID, signal);
    return { path };
  }

  async rescan(attached: Attached, limits: Limits): Promise<void> {
    const door = iscsiDoorOf(attached);
    const deadline = new Deadline(limits);
    await targetLock(this.#context, door, deadline, () =>
      rescanDisk(this.#context, door, deadline),
    );
  }

  async disconnect(attached: Attached, limits: Limits): Promise<void> {
    const door = iscsiDoorOf(attached);
    const deadline = new Deadline(limits);
    await targetLock(this.#context, door, deadline, async () => {
      const sessions = await sessionsOf(this.#places.sys, door.iqn);
      await removeLun(this.#context, sessions, door, attached.volumeID, deadline);
      const left = await sessionsOf(this.#places.sys, door.iqn);
      if (!left.some(hasDisks)) await logOut(this.#context, door, left, deadline);
    });
  }
}

/** Disks of other volumes keep the session; what a target shows beside them does not. */
function hasDisks({ devices }: IscsiSession): boolean {
  return devices.some(({ type }) => type === 0);
}
