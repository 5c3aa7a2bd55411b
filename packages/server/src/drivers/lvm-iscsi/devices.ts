/** The kernel's side of an active logical volume: its device, and who uses it. @see sysfs(5), proc(5) */
import { readdirSync, readFileSync, readlinkSync, realpathSync } from "node:fs";
import { basename, join } from "node:path";
import { readAllMounts } from "../../core/mounts.js";

const BY_ID = "/dev/disk/by-id/dm-uuid-";

/** How many processes are named in an error. */
const MOST_NAMED = 5;

/** A link that only this logical volume ever has: names are given again, these ids are not. */
export function linkOf(dmUUID: string): string {
  return `${BY_ID}${dmUUID}`;
}

export function isLinkOf(path: string): boolean {
  return path.startsWith(`${BY_ID}LVM-`);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}

/** The kernel's name of the device, such as `dm-3`; undefined while it is not active. */
export function kernelNameOf(path: string): string | undefined {
  try {
    const name = basename(realpathSync(path));
    return /^dm-\d+$/.test(name) ? name : undefined;
  } catch {
    return undefined;
  }
}

/** The id of an active logical volume, as in `linkOf`. */
export function dmUUIDOf(path: string): string | undefined {
  const name = kernelNameOf(path);
  const uuid = name === undefined ? "" : textOf(`/sys/block/${name}/dm/uuid`);
  return uuid.startsWith("LVM-") ? uuid : undefined;
}

export interface Uses {
  readonly mountPoints: readonly string[];
  /** Devices made of it, by their device-mapper names. */
  readonly holders: readonly string[];
  /** `PID (NAME)` of processes that have it open. */
  readonly processes: readonly string[];
}

/** As device-mapper calls it, with doubled dashes. */
export function dmNameOf(kernelName: string): string {
  return textOf(`/sys/block/${kernelName}/dm/name`) || kernelName;
}

/** Who has a device open, as far as this process may see; LIO's targets are not among them. */
function openersOf(device: string): string[] {
  const found: string[] = [];
  const isThat = (path: string): boolean => {
    try {
      return readlinkSync(path) === device;
    } catch {
      return false;
    }
  };
  for (const pid of readdirSync("/proc")) {
    if (found.length >= MOST_NAMED) break;
    if (!/^\d+$/.test(pid)) continue;
    try {
      const folder = `/proc/${pid}/fd`;
      if (readdirSync(folder).some((fd) => isThat(join(folder, fd))))
        found.push(`${pid} (${textOf(`/proc/${pid}/comm`)})`);
    } catch {
      // It has ended, or belongs to someone else.
    }
  }
  return found;
}

/** What uses an active volume on this host. */
export function usesOf(path: string): Uses {
  const kernelName = kernelNameOf(path);
  if (kernelName === undefined) return { mountPoints: [], holders: [], processes: [] };
  const number = textOf(`/sys/block/${kernelName}/dev`);
  const mounts = readAllMounts().filter(({ device }) => device === number);
  let holders: string[] = [];
  try {
    holders = readdirSync(`/sys/block/${kernelName}/holders`).map(dmNameOf);
  } catch {
    // It went away meanwhile.
  }
  const device = `/dev/${kernelName}`;
  return {
    mountPoints: [...new Set(mounts.map(({ mountPoint }) => mountPoint))],
    holders,
    processes: openersOf(device),
  };
}

/** For people: what uses it and what to do about that. */
export function wordsOf({ mountPoints, holders, processes }: Uses): string {
  const parts = [
    ...mountPoints.map((path) => `it is mounted at ${path} (unmount it there)`),
    ...holders.map((name) => `the device ${name} is made of it (dmsetup remove ${name})`),
    ...processes.map((one) => `process ${one} has it open`),
  ];
  if (parts.length > 0) return parts.join("; ");
  return "something in the kernel has it open, such as an exported target (targetcli ls) or swap";
}

export function isSuspended(kernelName: string): boolean {
  return textOf(`/sys/block/${kernelName}/dm/suspended`) === "1";
}
