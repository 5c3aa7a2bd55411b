/**
 * The device of one LUN: found, proven, grown, and removed. A LUN number says nothing of the volume behind it,
 * and what /sys remembers of a device may be of the volume that had the number before; so before any use
 * the device itself is asked.
 */
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../executor/exec.js";
import { placesOf } from "../../executor/executor.js";
import type { ExecutorContext } from "../../executor/executor.js";
import { openersAt, usersOf } from "../block-use.js";
import { sysReal, sysText, tellKernel } from "../kernel.js";
import type { Deadline } from "../transport.js";
import type { IscsiDoor } from "./door.js";
import { allMaps, forgetPath, mapOver, removeMap } from "./multipath.js";
import { scsiIdentity } from "./scsi-id.js";
import type { ScsiIdentity } from "./scsi-id.js";
import { sessionsOf } from "./sessions.js";
import type { IscsiSession, ScsiDevice } from "./sessions.js";

const ASK_MS = 15_000;
/** How long a LUN that the target does not show yet is waited for. */
const LUN_MS = 15_000;
const SCAN_EVERY_MS = 2_000;
const LOOK_EVERY_MS = 50;
/** How long a session that was lost is waited for before its device is asked for a new size. */
const BACK_MS = 60_000;
const BACK_EVERY_MS = 250;

function about(volumeID: string, { link, iqn, lun }: IscsiDoor): Record<string, unknown> {
  return { volumeID, device: link, iqn, lun };
}

function isVolume({ wwid, serial }: ScsiIdentity, door: IscsiDoor): boolean {
  if (door.wwid !== undefined && door.wwid !== wwid) return false;
  return door.serial === undefined || door.serial === serial;
}

function inWords({ wwid, serial }: ScsiIdentity): string {
  if (wwid === "" && serial === "") return "nothing: the target has taken its LUN away";
  return `wwid ${wwid === "" ? "unknown" : wwid}, serial ${serial === "" ? "unknown" : serial}`;
}

/**
 * Makes sure that a disk is the volume: it belongs to a session of the target, and says so itself.
 * @throws {StorageError} `failed-precondition` when it is not; `unavailable` when it does not answer
 */
export async function proveDisk(
  context: ExecutorContext,
  disk: string,
  door: IscsiDoor,
  volumeID: string,
  signal: AbortSignal,
): Promise<void> {
  const { sys } = placesOf(context);
  const folder = await sysReal(join(sys, "class/block", disk, "device"));
  const devices = (await sessionsOf(sys, door.iqn)).flatMap((session) => session.devices);
  const own = devices.find((device) => device.address === basename(folder));
  if (own?.lun !== door.lun)
    throw new StorageError(
      "failed-precondition",
      `volume ${volumeID} is not used: ${door.link} leads to ${disk}, which is not LUN ${door.lun} of ${door.iqn}`,
      about(volumeID, door),
    );
  const identity = await ask(context, disk, door, volumeID, signal);
  if (isVolume(identity, door)) return;
  throw new StorageError(
    "failed-precondition",
    `volume ${volumeID} is not used: ${disk} says of itself ${inWords(identity)}, and not wwid ${door.wwid}, serial ${door.serial}; "libstorage host check --fix" removes devices that are left over`,
    about(volumeID, door),
  );
}

async function ask(
  { exec }: ExecutorContext,
  disk: string,
  door: IscsiDoor,
  volumeID: string,
  signal: AbortSignal,
): Promise<ScsiIdentity> {
  try {
    return await scsiIdentity(exec, `/dev/${disk}`, { signal, timeoutMs: ASK_MS });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new StorageError(
      "unavailable",
      `volume ${volumeID} is not used: ${disk} does not say which volume it is (${error.message}); is the session with ${door.iqn} alive?`,
      about(volumeID, door),
      { cause: error },
    );
  }
}

/**
 * The disk of the wanted LUN in a session. One that was left there by another volume is removed first.
 * @returns its name, such as `sdb`
 */
export async function lookForLun(
  context: ExecutorContext,
  wanted: IscsiSession,
  door: IscsiDoor,
  volumeID: string,
  deadline: Deadline,
): Promise<string> {
  const { sys } = placesOf(context);
  const stale = (await lunIn(sys, wanted, door)).device;
  if (stale !== undefined && !(await isStillIt(context, stale, door, volumeID, deadline)))
    await removeStale(context, stale, door, volumeID, deadline);
  const device = await scanForLun(context, wanted, door, deadline);
  if (device?.disk !== undefined) return device.disk;
  throw new StorageError(
    "unavailable",
    `the target ${door.iqn} lets this host in, but shows it no disk with LUN ${door.lun}: has the volume been detached meanwhile? Look with "libstorage volume inspect ${volumeID}"`,
    about(volumeID, door),
  );
}

interface LunInSession {
  /** Undefined when it has ended. */
  readonly session?: IscsiSession;
  readonly device?: ScsiDevice;
}

async function lunIn(
  sys: string,
  { name, target }: IscsiSession,
  door: IscsiDoor,
): Promise<LunInSession> {
  const session = (await sessionsOf(sys, target)).find((one) => one.name === name);
  const device = session?.devices.find(({ lun }) => lun === door.lun);
  return { ...(session && { session }), ...(device && { device }) };
}

/**
 * Has the kernel ask the target for the LUN, again while its session is between two connections, when the kernel asks
 * nothing. A disk gets its name by itself, a moment after its LUN was found.
 */
async function scanForLun(
  context: ExecutorContext,
  wanted: IscsiSession,
  door: IscsiDoor,
  deadline: Deadline,
): Promise<ScsiDevice | undefined> {
  const { sys } = placesOf(context);
  const until = performance.now() + deadline.left(LUN_MS);
  let scanned = -Infinity;
  for (;;) {
    const { session, device } = await lunIn(sys, wanted, door);
    if (session === undefined || device?.disk !== undefined) return device;
    const now = performance.now();
    if (device === undefined && now - scanned > SCAN_EVERY_MS) {
      scanned = now;
      await tellKernel(
        context.exec,
        join(sys, "class/scsi_host", session.host, "scan"),
        // Of each channel and target a session has but one.
        `0 0 ${door.lun}\n`,
        { signal: deadline.signal, timeoutMs: deadline.left() },
      );
    } else if (now > until || deadline.signal.aborted) return undefined;
    else await sleep(LOOK_EVERY_MS);
  }
}

/** A device that was there before may be of a volume that had the number once. */
async function isStillIt(
  context: ExecutorContext,
  { disk, folder }: ScsiDevice,
  door: IscsiDoor,
  volumeID: string,
  deadline: Deadline,
): Promise<boolean> {
  if (disk === undefined) return false;
  if (!isVolume(await ask(context, disk, door, volumeID, deadline.signal), door)) return false;
  const limit = { signal: deadline.signal, timeoutMs: deadline.left(ASK_MS) };
  await tellKernel(context.exec, join(folder, "rescan"), "1\n", limit);
  return true;
}

async function removeStale(
  context: ExecutorContext,
  device: ScsiDevice,
  door: IscsiDoor,
  volumeID: string,
  deadline: Deadline,
): Promise<void> {
  const { sys } = placesOf(context);
  const users = device.disk === undefined ? [] : await usersOf(sys, device.disk);
  if (users.length > 0)
    throw new StorageError(
      "failed-precondition",
      `LUN ${door.lun} of ${door.iqn} is ${device.disk} on this host, which is left over from another volume and used by ${users.join(", ")}: end that use, then try again`,
      about(volumeID, door),
    );
  await removeDevice(context, device, deadline);
}

export async function removeDevice(
  { exec }: ExecutorContext,
  { folder, disk }: ScsiDevice,
  deadline: Deadline,
): Promise<void> {
  const { signal } = deadline;
  if (disk !== undefined)
    // What is dead cannot be flushed, and nobody has anything to write to what is not in use.
    await exec("blockdev", ["--flushbufs", `/dev/${disk}`], {
      signal,
      timeoutMs: deadline.left(ASK_MS),
    }).catch(() => {});
  await tellKernel(exec, join(folder, "delete"), "1\n", { signal, timeoutMs: deadline.left() });
}

/** Makes a new size known: to every path, then to the map over them. */
export async function rescanDisk(
  context: ExecutorContext,
  door: IscsiDoor,
  deadline: Deadline,
): Promise<void> {
  const { exec } = context;
  const { sys } = placesOf(context);
  const limit = (): { signal: AbortSignal; timeoutMs: number } => ({
    signal: deadline.signal,
    timeoutMs: deadline.left(30_000),
  });
  const disks: string[] = [];
  for (const { devices } of await sessionsBack(sys, door.iqn, deadline))
    for (const { lun, folder, disk } of devices)
      if (lun === door.lun && disk !== undefined) {
        await tellKernel(exec, join(folder, "rescan"), "1\n", limit());
        disks.push(disk);
      }
  const [first] = disks;
  const map = first === undefined ? undefined : await mapOver(sys, first);
  if (map !== undefined) await exec("multipathd", ["resize", "map", map.name], limit());
}

/**
 * The sessions that are logged in. Those that iscsid is making again are waited for: asked over one of them a device
 * would keep its old size, and say nothing of it.
 * @throws {StorageError} `unavailable` when there are some, and none comes back in time
 */
async function sessionsBack(
  sys: string,
  iqn: string,
  deadline: Deadline,
): Promise<readonly IscsiSession[]> {
  const end = performance.now() + deadline.left(BACK_MS);
  for (;;) {
    const sessions = await sessionsOf(sys, iqn);
    const back = sessions.filter(({ state }) => state === "LOGGED_IN");
    if (back.length === sessions.length) return back;
    if (performance.now() > end) {
      if (back.length > 0) return back;
      throw new StorageError(
        "unavailable",
        `the session with ${iqn} is ${sessions[0]?.state}, so that its device cannot be asked for its new size; look at the network between the hosts, and try again`,
        { iqn },
      );
    }
    await sleep(BACK_EVERY_MS);
  }
}

/** Whether the number has gone to another volume meanwhile. A device that says nothing is not. */
async function isAnothers(
  { exec }: ExecutorContext,
  { disk, folder }: ScsiDevice,
  door: IscsiDoor,
  deadline: Deadline,
): Promise<boolean> {
  if (disk === undefined || door.wwid === undefined) return false;
  // What /sys remembers is enough when it is right; it is not asked for a device that may be dead.
  const remembered = (await sysText(join(folder, "wwid"))).toLowerCase();
  if (remembered.replace(/^naa\./, "3").replace(/^eui\./, "2") === door.wwid) return false;
  const limit = { signal: deadline.signal, timeoutMs: deadline.left(ASK_MS) };
  const identity = await scsiIdentity(exec, `/dev/${disk}`, limit).catch(() => undefined);
  return identity !== undefined && identity.wwid !== "" && !isVolume(identity, door);
}

/** @param map over the disks, which hold it in the kernel's table; a program may have opened one beside it */
async function refuseUsed(
  sys: string,
  map: string | undefined,
  disks: readonly string[],
  door: IscsiDoor,
  volumeID: string,
): Promise<void> {
  for (const device of map === undefined ? disks : [map, ...disks]) {
    const isPath = map !== undefined && device !== map;
    const users = isPath ? await openersAt(sys, [device]) : await usersOf(sys, device);
    if (users.length > 0)
      throw new StorageError(
        "failed-precondition",
        `volume ${volumeID} stays on this host: its device ${device} is used by ${users.join(", ")}; end that use first`,
        about(volumeID, door),
      );
  }
}

/**
 * Removes the volume's LUN from every session, the map over it first. Other LUNs are left alone.
 * @throws {StorageError} `failed-precondition` while something uses it
 */
export async function removeLun(
  context: ExecutorContext,
  sessions: readonly IscsiSession[],
  door: IscsiDoor,
  volumeID: string,
  deadline: Deadline,
): Promise<void> {
  const { sys } = placesOf(context);
  const devices: ScsiDevice[] = [];
  for (const device of sessions.flatMap((one) => one.devices))
    if (device.lun === door.lun && !(await isAnothers(context, device, door, deadline)))
      devices.push(device);
  const disks = devices.flatMap((device) => device.disk ?? []);
  const [disk] = disks;
  const over = disk === undefined ? undefined : await mapOver(sys, disk);
  // One that has lost every path stands over no disk any more.
  const map = over ?? (await allMaps(sys)).find(({ wwid }) => wwid === door.wwid);
  await refuseUsed(sys, map?.disk, disks, door, volumeID);
  const limit = (): { signal: AbortSignal; timeoutMs: number } => ({
    signal: deadline.signal,
    timeoutMs: deadline.left(30_000),
  });
  if (map !== undefined) {
    await removeMap(context.exec, map, limit());
    if (disk !== undefined) await forgetPath(context.exec, `/dev/${disk}`, limit()).catch(() => {});
  }
  for (const device of devices) await removeDevice(context, device, deadline);
}
