/** A volume group on a disk of the machine, and services on it. */
import { DRIVERS } from "@libstorage/server";
import type { DriverContext, StorageDriver } from "@libstorage/server";
import type { Harness } from "../conformance/fixture.js";
import { isWantedIn } from "./lvm-sample.js";
import { sh } from "./shell.js";

export const GROUP = "vg0";
export const POOL = "pool";

/** Small, so that whole copies stay quick. */
export const SIZE = "8M";
export const SIZE_BYTES = 8 * 1024 ** 2;

/** Nothing looks at the group by itself while a test counts commands. */
const NEVER = 3600;

export function makeGroup(disk: string, name = GROUP): void {
  sh(`modprobe -a dm-mod dm-thin-pool dm-snapshot
    pvcreate -q --metadatasize 16M ${disk}; vgcreate -q ${name} ${disk}`);
}

export function makePool(name: string, options: string, group = GROUP): void {
  sh(`lvcreate -qq -y ${options} --thinpool ${name} ${group}`);
}

export function lvNames(group = GROUP): string[] {
  return sh(`lvs --noheadings -o lv_name ${group}`)
    .split("\n")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

export function configOf(thinPool: string | undefined, more: object = {}): object {
  return {
    volumeGroup: GROUP,
    prefix: "lvm-",
    wipe: "none",
    defaultSize: SIZE,
    snapshotPercent: 100,
    watchSeconds: NEVER,
    pool: {
      warnAt: 80,
      extendAt: 85,
      refuseAt: 92,
      suspendAt: 97,
      checkSeconds: 600,
    },
    ...(thinPool !== undefined && { thinPool }),
    ...more,
  };
}

export function openDriver(config: object, context: DriverContext): Promise<StorageDriver> {
  return DRIVERS["lvm-iscsi"].open(config, context);
}

const SLOW = "two hundred volumes take minutes on an emulated machine; bench:lab lists as many";

export function harnessOf(thinPool: string | undefined): Harness {
  const others = new Set<string>();
  return {
    skip: false,
    isDurable: true,
    hasFolders: "volumes are block devices",
    hasDoors: true,
    isWanted: isWantedIn(thinPool === undefined ? "thick" : "thin"),
    before: async () => lvNames().forEach((name) => others.add(name)),
    place: async () => ({
      open: (context) => openDriver(configOf(thinPool), context),
      leftovers: async () => lvNames().filter((name) => !others.has(name)),
      close: async () => {},
    }),
    differs: {
      "a size of 0 stays 0": "a block device has a size",
      "the largest size is kept to the byte": "LVM refuses what it cannot address",
      "the device name that was asked for is kept": "a logical volume has one safe name of its own",
      "a list of two hundred is whole": SLOW,
    },
  };
}
