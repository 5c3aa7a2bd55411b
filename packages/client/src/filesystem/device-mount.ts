/** A block device's file system at a mount point. */
import * as fs from "node:fs/promises";
import { dirname } from "node:path";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../executor/exec.js";
import type {
  Mounted,
  MountRecord,
  MountSource,
  UnmountRequest,
  WantedFileSystem,
} from "../executor/executor.js";
import {
  canonical,
  checkMountOptions,
  inTheWay,
  removeEmpty,
  standingAt,
  unmountBusy,
} from "../executor/mount-point.js";
import type { MountHost } from "../executor/mount-point.js";
import { isOfEveryFileSystem } from "../executor/kernel-mount.js";
import { readMountTable } from "../executor/mount-table.js";
import { numbersIn } from "./device-numbers.js";
import { ensureFileSystem, growFileSystem } from "./file-system.js";
import type { VolumeDevice } from "./file-system.js";
import type { FileSystemKind } from "./kinds.js";

/** Replaying the log of a large file system takes its time. */
const MOUNT_MS = 10 * 60_000;

/** What identifies the device in the kernel's table. */
export interface DeviceNumbers {
  /** `/dev/sdb`. */
  readonly path: string;
  readonly major: number;
  readonly minor: number;
}

export async function numbersOf(path: string): Promise<DeviceNumbers | undefined> {
  const found = await fs.stat(path).catch(() => undefined);
  if (found?.isBlockDevice() !== true) return undefined;
  return { path, ...numbersIn(found.rdev) };
}

/** Whether a mount is of the device. Btrfs shows numbers of its own, and the node by one of its names. */
export async function isOfDevice(
  { major, minor, source, fsType }: MountRecord,
  device: DeviceNumbers,
): Promise<boolean> {
  if (major === device.major && minor === device.minor) return true;
  if (fsType !== "btrfs") return false;
  return (await fs.realpath(source).catch(() => source)) === device.path;
}

/** A mount by what was noted when it was made. */
export function isNoted(record: MountRecord, noted: MountSource): boolean {
  return (
    record.source === noted.source && record.major === noted.major && record.minor === noted.minor
  );
}

export function sourceOf({ source, major, minor }: MountRecord): MountSource {
  return { source, major, minor };
}

export interface DeviceMountRequest {
  readonly device: VolumeDevice;
  readonly mountPoint: string;
  readonly options: string;
  readonly fileSystem?: WantedFileSystem;
}

/**
 * Mounts a device, making a file system on it first if it is blank and one is wanted.
 * @throws {StorageError} `failed-precondition` with what is in the way, on the device or at the mount point
 */
export async function mountDevice(
  host: MountHost,
  { device, mountPoint: given, options, fileSystem }: DeviceMountRequest,
): Promise<Mounted> {
  if (options !== "") checkMountOptions(options);
  const isReadOnly = options.split(",").includes("ro");
  const mountPoint = await canonical(given);
  const numbers = await provenNumbers(device);
  const there = await standingAt(mountPoint, (top) => isOfDevice(top, numbers));
  if (there.kind === "mount")
    return { mountPoint, kind: "mount", wasThere: true, source: sourceOf(there.top) };
  if (there.kind === "other")
    throw inTheWay(mountPoint, there.what, "remove it, or mount the volume elsewhere");
  await refuseElsewhere(device.volumeID, numbers);
  const { kind, wasMade } = await ensureFileSystem(device, fileSystem, isReadOnly);
  await fs.mkdir(dirname(mountPoint), { recursive: true, mode: 0o755 });
  if (there.kind === "nothing") await fs.mkdir(mountPoint, { mode: 0o755 });
  const node = await device.prove();
  await runMount(host, device, kind, node, mountPoint, options);
  const now = await standingAt(mountPoint, (top) => isOfDevice(top, numbers));
  if (now.kind !== "mount")
    throw new StorageError(
      "internal",
      `mount succeeded, but ${node} does not stand at ${mountPoint}; look at it with findmnt ${mountPoint}`,
      { mountPoint, device: node },
    );
  // One that was just made is as large as its device.
  if (!isReadOnly && !wasMade) await growMounted(device, kind, node, mountPoint);
  return { mountPoint, kind: "mount", wasThere: false, source: sourceOf(now.top) };
}

async function provenNumbers({ prove }: VolumeDevice): Promise<DeviceNumbers> {
  const path = await prove();
  const numbers = await numbersOf(path);
  if (numbers !== undefined) return numbers;
  throw new StorageError("failed-precondition", `${path} is no block device`, { device: path });
}

/** A check or a second mount under somebody's feet destroys data. */
export async function refuseElsewhere(volumeID: string, numbers: DeviceNumbers): Promise<void> {
  for (const record of await readMountTable())
    if (await isOfDevice(record, numbers))
      throw new StorageError(
        "failed-precondition",
        `volume ${volumeID} (${numbers.path}) is mounted at ${record.mountPoint} already: unmount it there first`,
        { volumeID, mountPoint: record.mountPoint },
      );
}

async function runMount(
  host: MountHost,
  { volumeID, signal }: VolumeDevice,
  kind: FileSystemKind,
  node: string,
  mountPoint: string,
  options: string,
): Promise<void> {
  const all = [kind.mountOptions ?? "", options].filter((one) => one !== "").join(",");
  const args = ["-t", kind.type, ...(all === "" ? [] : ["-o", all]), "--", node, mountPoint];
  try {
    await host.exec("mount", args, { signal, timeoutMs: MOUNT_MS });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const names = specificNames(options);
    const reason = suspected(error.stderr, names);
    const advice = {
      damage: `; its file system ${kind.type} may be damaged: look at the kernel's log (dmesg), then run "${kind.repair(node)}"`,
      options: `; ${kind.type} may not know one of the mount options (${names.join(", ")}): look at the kernel's log (dmesg) and mount(8), or leave them out; if it cannot be mounted without them either, it may be damaged`,
      none: "",
    }[reason];
    throw new StorageError(
      reason === "none" ? error.code : "failed-precondition",
      `volume ${volumeID} cannot be mounted: ${error.message}${advice}`,
      { ...error.data, volumeID },
      { cause: error },
    );
  }
}

/** Of a bad option mount(8) says the same as of a bad file system, or of 2.39 on what the kernel says of it. */
function suspected(stderr: string, names: readonly string[]): "damage" | "options" | "none" {
  if (/needs cleaning|can't read superblock/i.test(stderr)) return "damage";
  if (!/wrong fs type|bad option|bad superblock|unknown parameter/i.test(stderr)) return "none";
  return names.length === 0 ? "damage" : "options";
}

/** Options that not every file system knows, without their values, which are nobody else's business. */
function specificNames(options: string): readonly string[] {
  return options
    .split(",")
    .filter((one) => one !== "" && !isOfEveryFileSystem(one))
    .map((one) => one.split("=")[0] ?? "");
}

/** The volume may have grown while it was not mounted. A file system that stays smaller is usable. */
async function growMounted(
  device: VolumeDevice,
  kind: FileSystemKind,
  node: string,
  mountPoint: string,
): Promise<void> {
  try {
    await growFileSystem(device, kind, node, mountPoint);
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    device.warn?.(error.message);
  }
}

/**
 * Takes a mount away; with `removeFolder` also the folder below it, if that is empty.
 * @param isWanted whether a mount is the volume's
 * @throws {StorageError} `failed-precondition` when something else stands there, or processes use it
 */
export async function unmountDevice(
  host: MountHost,
  { mountPoint: given, removeFolder, signal }: UnmountRequest,
  isWanted: (top: MountRecord) => boolean | Promise<boolean>,
): Promise<void> {
  const mountPoint = await canonical(given);
  const there = await standingAt(mountPoint, isWanted);
  if (there.kind === "nothing") return;
  if (there.kind === "other" && there.isMount)
    throw inTheWay(mountPoint, there.what, "it is left as it is");
  if (there.kind === "mount") await unmountBusy(host, mountPoint, signal);
  if (removeFolder) await removeEmpty(mountPoint);
}
