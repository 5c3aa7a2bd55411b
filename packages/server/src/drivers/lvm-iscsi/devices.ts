/** The kernel's side of an active logical volume: its device, and what that is called. @see sysfs(5) */
import { realpathSync } from "node:fs";
import { basename } from "node:path";
import { textOf } from "../../core/kernel-text.js";

const BY_ID = "/dev/disk/by-id/dm-uuid-";

/** A link that only this logical volume ever has: names are given again, these ids are not. */
export function linkOf(dmUUID: string): string {
  return `${BY_ID}${dmUUID}`;
}

export function isLinkOf(path: string): boolean {
  return path.startsWith(`${BY_ID}LVM-`);
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

/** As device-mapper calls it, with doubled dashes. */
export function dmNameOf(kernelName: string, sys = "/sys"): string {
  return textOf(`${sys}/block/${kernelName}/dm/name`) || kernelName;
}

export function isSuspended(kernelName: string): boolean {
  return textOf(`/sys/block/${kernelName}/dm/suspended`) === "1";
}
