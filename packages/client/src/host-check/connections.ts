/** Connections to volumes that this host has no right to any more, and what of them is left in the kernel. */
import { openExecutor } from "../executor/index.js";
import { placesOf } from "../executor/executor.js";
import { usersOf } from "../transports/block-use.js";
import { Deadline } from "../transports/transport.js";
import { iscsiDoorOf } from "../transports/iscsi/door.js";
import type { IscsiDoor } from "../transports/iscsi/door.js";
import { logOut, targetLock } from "../transports/iscsi/login.js";
import { removeDevice } from "../transports/iscsi/lun.js";
import { allMaps, removeMap } from "../transports/iscsi/multipath.js";
import { iscsiSessions } from "../transports/iscsi/sessions.js";
import type { IscsiSession, ScsiDevice } from "../transports/iscsi/sessions.js";
import { lockFileOf, readKnown } from "./known.js";
import type { KnownConnection } from "./known.js";
import type { Check, CheckOptions, Leftover } from "./leftover.js";
import { locked } from "./mounts.js";

const DISCONNECT_MS = 120_000;

async function leftoverOf(
  options: CheckOptions,
  known: KnownConnection,
): Promise<Leftover | undefined> {
  const { record, connections } = known;
  const { volumeID, device, fields } = record;
  const attachments = await options.attachments(known);
  const what = `${device} (${fields["iqn"] ?? fields["exporter"] ?? "local"})`;
  if (!attachments.known)
    return {
      kind: "connection-without-attachment",
      what,
      about: `this host is connected to volume ${volumeID}, and whether it may be is not known: ${attachments.why}`,
      instead: "check again when the server answers",
    };
  if (attachments.volumeIDs.has(volumeID)) return undefined;
  return {
    kind: "connection-without-attachment",
    what,
    about: `this host is connected to volume ${volumeID}, which is not attached to it (any more)`,
    fix: async () =>
      locked(options, lockFileOf(options, known, volumeID), async () => {
        const executor = openExecutor(record.driver, options.executors);
        if (executor === undefined) return `this client has no executor for ${record.driver}`;
        const limits = { signal: options.signal, timeoutMs: DISCONNECT_MS };
        await connections.disconnect(executor, record, limits);
        return "removed its device, and logged out where nothing else needs the session";
      }),
  };
}

export const checkConnections: Check = async (options) => {
  const { connections } = await readKnown(options);
  const found = await Promise.all(connections.map((known) => leftoverOf(options, known)));
  return found.filter((one) => one !== undefined);
};

/** The targets that are ours: those that a record of this client names. Others are never looked at. */
async function ownDoors(options: CheckOptions): Promise<readonly IscsiDoor[]> {
  const { connections } = await readKnown(options);
  return connections
    .filter(({ record }) => record.fields["iqn"] !== undefined)
    .map(({ record }) => iscsiDoorOf(record));
}

/** Disks in sessions of our targets that no record names. */
export const checkScsi: Check = async (options) => {
  const doors = await ownDoors(options);
  const { sys } = placesOf(options.executors);
  const found: Leftover[] = [];
  for (const session of await iscsiSessions(sys)) {
    const own = doors.filter(({ iqn }) => iqn === session.target);
    const [door] = own;
    if (door === undefined) continue;
    for (const device of session.devices.filter(({ type }) => type === 0))
      if (!own.some(({ lun }) => lun === device.lun))
        found.push(await staleDevice(options, session, device, door));
  }
  return found;
};

async function staleDevice(
  options: CheckOptions,
  { target }: IscsiSession,
  device: ScsiDevice,
  door: IscsiDoor,
): Promise<Leftover> {
  const { sys } = placesOf(options.executors);
  const what = `${device.disk ?? device.address} (LUN ${device.lun} of ${target})`;
  const about = "it belongs to no volume that this host is connected to";
  const users = device.disk === undefined ? [] : await usersOf(sys, device.disk);
  if (users.length > 0)
    return {
      kind: "stale-scsi-device",
      what,
      about,
      instead: `it is used by ${users.join(", ")}: end that use first`,
    };
  return {
    kind: "stale-scsi-device",
    what,
    about,
    fix: async () => {
      const deadline = new Deadline({ signal: options.signal, timeoutMs: DISCONNECT_MS });
      await targetLock(options.executors, door, deadline, () =>
        removeDevice(options.executors, device, deadline),
      );
      return "removed the device";
    },
  };
}

/** Sessions of our targets in which no disk is left, and maps over volumes of ours that have lost every path. */
export const checkSessions: Check = async (options) => {
  const { executors } = options;
  const { sys } = placesOf(executors);
  const doors = await ownDoors(options);
  const sessions = await iscsiSessions(sys);
  const found: Leftover[] = [];
  for (const door of new Map(doors.map((one) => [one.iqn, one])).values()) {
    const own = sessions.filter(({ target }) => target === door.iqn);
    if (own.length === 0 || own.some(({ devices }) => devices.some(({ type }) => type === 0)))
      continue;
    found.push({
      kind: "session-without-volume",
      what: own.map(({ name }) => `${name} (${door.iqn})`).join(", "),
      about: "it is a session with a target of ours, without any disk",
      fix: async () => {
        const deadline = new Deadline({ signal: options.signal, timeoutMs: DISCONNECT_MS });
        await targetLock(executors, door, deadline, () => logOut(executors, door, own, deadline));
        return "logged out; the volume is connected anew when it is mounted";
      },
    });
  }
  for (const map of await allMaps(sys)) {
    if (map.paths.length > 0 || !doors.some(({ wwid }) => wwid === map.wwid)) continue;
    const users = await usersOf(sys, map.disk);
    const leftover = {
      kind: "multipath-leftover",
      what: `${map.name} (${map.disk})`,
      about: "it is a map of multipath over a volume of ours, and has no path left",
    } as const;
    found.push(
      users.length > 0
        ? { ...leftover, instead: `it is used by ${users.join(", ")}: end that use first` }
        : {
            ...leftover,
            fix: async () => {
              const limit = { signal: options.signal, timeoutMs: 30_000 };
              await removeMap(executors.exec, map, limit);
              return "removed the map";
            },
          },
    );
  }
  return found;
};
