/** What some commands of btrfs(8) ask the kernel for, in numbers of linux/btrfs.h. */
import { basename, dirname } from "node:path";
import type { KernelCall } from "../../core/kernel-call.js";

/** `struct btrfs_ioctl_vol_args`, its second version, and the arguments of GET_SUBVOL_ROOTREF. */
const ARGUMENT_BYTES = 4096;
/** Where the first two have the name, which ends with a zero. */
const NAME_AT = 8;
const NAME_AT_V2 = 56;
const FLAGS_AT_V2 = 16;
const READ_ONLY = 2n;
const NUMBER_OF_REFERENCES_AT = 4088;
const MAX_NAME_BYTES = 255;

/** Has the thread commit that then wakes the cleaner, which a sync of a folder does not. */
const START_SYNC = 0x8008_9418;
/** Of the newest commit that has begun, when its argument is 0. */
const WAIT_SYNC = 0x4008_9416;
const SUBVOL_CREATE = 0x5000_940e;
const SNAP_DESTROY = 0x5000_940f;
const SNAP_CREATE_V2 = 0x5000_9417;
const GET_SUBVOL_ROOTREF = 0xd000_943d;

/** @returns none for what shall be left to the command */
function named(path: string, request: number, nameAt: number): KernelCall[] {
  const name = Buffer.from(basename(path));
  if (!path.startsWith("/") || name.length > MAX_NAME_BYTES || name.includes(0)) return [];
  const argument = Buffer.alloc(ARGUMENT_BYTES);
  name.copy(argument, nameAt);
  return [{ folder: dirname(path), request, argument }];
}

export const subvolumeCreate = (path: string): KernelCall[] => named(path, SUBVOL_CREATE, NAME_AT);

/** Refuses with subvolumes inside. */
export const subvolumeDelete = (path: string): KernelCall[] => named(path, SNAP_DESTROY, NAME_AT);

export function subvolumeSnapshot(from: string, to: string, isReadOnly: boolean): KernelCall[] {
  return named(to, SNAP_CREATE_V2, NAME_AT_V2).map((call) => {
    const argument = Buffer.from(call.argument);
    if (isReadOnly) argument.writeBigUInt64LE(READ_ONLY, FLAGS_AT_V2);
    return { ...call, argument, source: from };
  });
}

/** Takes all changes made before to the disk, but not the data of files, which could be many. */
export const commit = (folder: string): KernelCall[] =>
  [START_SYNC, WAIT_SYNC].map((request) => ({ folder, request, argument: new Uint8Array(8) }));

/** Enough where there are none: the kernel tells of numbers, and of their paths only from the top. */
export const noSubvolumeBelow = (folder: string): KernelCall[] => [
  {
    folder,
    request: GET_SUBVOL_ROOTREF,
    argument: new Uint8Array(ARGUMENT_BYTES),
    zeroAt: NUMBER_OF_REFERENCES_AT,
  },
];
