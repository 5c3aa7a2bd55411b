/** The iSCSI sessions of this host and the devices behind them, as /sys shows them. It needs no daemon. */
import { basename, join } from "node:path";
import { sysEntries, sysReal, sysText } from "../kernel.js";
import type { Portal } from "./door.js";

export interface ScsiDevice {
  /** Host, channel, target, LUN: `3:0:0:1`. */
  readonly address: string;
  readonly lun: number;
  /** Its folder below /sys. */
  readonly folder: string;
  /** `sdb`; left out for what is no disk, and for a disk that is just being found. */
  readonly disk?: string;
  /** As in SPC: 0 is a disk, 12 a controller, 31 nothing. */
  readonly type: number;
}

export interface IscsiSession {
  /** `session3`. */
  readonly name: string;
  readonly target: string;
  /** `LOGGED_IN`, `FAILED`, `FREE`. */
  readonly state: string;
  /** The SCSI host: `host3`. */
  readonly host: string;
  /** Where it was asked to connect; undefined while it is between two connections. */
  readonly portal?: Portal;
  readonly devices: readonly ScsiDevice[];
}

/** `-1` and `(null)` are what the kernel says for "not known". */
async function portalOf(sys: string, folder: string): Promise<Portal | undefined> {
  const connection = (await sysEntries(folder)).find((name) => /^connection\d+:\d+$/.test(name));
  if (connection === undefined) return undefined;
  const at = join(sys, "class/iscsi_connection", connection);
  const address = await sysText(join(at, "persistent_address"));
  const port = Number(await sysText(join(at, "persistent_port")));
  if (address === "" || address === "(null)" || !(port > 0)) return undefined;
  return { address: address.toLowerCase(), port };
}

async function deviceAt(folder: string): Promise<ScsiDevice> {
  const address = basename(folder);
  const [disk] = await sysEntries(join(folder, "block"));
  return {
    address,
    lun: Number(address.split(":").at(-1)),
    folder,
    type: Number((await sysText(join(folder, "type"))) || "31"),
    ...(disk !== undefined && { disk }),
  };
}

async function devicesOf(folder: string): Promise<readonly ScsiDevice[]> {
  const targets = (await sysEntries(folder)).filter((name) => /^target\d+:\d+:\d+$/.test(name));
  const folders = await Promise.all(
    targets.map(async (target) =>
      (await sysEntries(join(folder, target)))
        .filter((name) => /^\d+:\d+:\d+:\d+$/.test(name))
        .map((name) => join(folder, target, name)),
    ),
  );
  return Promise.all(folders.flat().map(deviceAt));
}

async function sessionAt(sys: string, name: string): Promise<IscsiSession | undefined> {
  const at = join(sys, "class/iscsi_session", name);
  const target = await sysText(join(at, "targetname"));
  // Such as /sys/devices/platform/host3/session1.
  const folder = await sysReal(join(at, "device"));
  const host = /\/(host\d+)\/session\d+$/.exec(folder)?.[1];
  // One that goes while it is looked at.
  if (target === "" || host === undefined) return undefined;
  const portal = await portalOf(sys, folder);
  return {
    name,
    target,
    state: await sysText(join(at, "state")),
    host,
    devices: await devicesOf(folder),
    ...(portal !== undefined && { portal }),
  };
}

export async function iscsiSessions(sys: string): Promise<readonly IscsiSession[]> {
  const names = await sysEntries(join(sys, "class/iscsi_session"));
  const found = await Promise.all(names.map((name) => sessionAt(sys, name)));
  return found.filter((session) => session !== undefined);
}

export async function sessionsOf(sys: string, iqn: string): Promise<readonly IscsiSession[]> {
  return (await iscsiSessions(sys)).filter(({ target }) => target === iqn);
}

export function isSamePortal(a: Portal | undefined, b: Portal): boolean {
  return a?.address === b.address && a.port === b.port;
}
