/**
 * Volumes that come over NFS: the mount is the connection. Mounts are hard: a program waits while its server is
 * away, and goes on when it is back, where a soft mount would lose the write and say so to a program that
 * may not listen. When the server takes the volume away, as for another host, every use fails at once with
 * ESTALE instead. Who wants it otherwise says `soft` in the mount options.
 *
 * A mount whose server is away must not be looked at: even lstat(2) would wait for it. The kernel's table says
 * enough.
 */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../executor/exec.js";
import type { Attached, Mounted, MountRecord, UnmountRequest } from "../executor/executor.js";
import {
  canonical,
  checkMountOptions,
  inTheWay,
  removeEmpty,
  standingAt,
  unmountBusy,
} from "../executor/mount-point.js";
import type { MountHost } from "../executor/mount-point.js";
import { mountsAt, readMountTable } from "../executor/mount-table.js";
import type { MountTable } from "../executor/mount-table.js";
import { serverOf, whileThere } from "./nfs-server.js";

export const NFS = "nfs";

const MOUNT_MS = 45_000;
/** Also how long a server may be away before nobody waits for it. */
const UNMOUNT_MS = 10_000;
/** What a program has left to be written may be much, and the network slow. */
const WRITE_MS = 30 * 60_000;

const Door = v.object({
  version: v.optional(v.pipe(v.string(), v.regex(/^[34](?:\.[012])?$/)), "4.2"),
  options: v.optional(v.pipe(v.string(), v.regex(/^(?:[\w=.:/@%+-]+(?:,[\w=.:/@%+-]+)*)?$/)), ""),
});

/** `HOST:/PATH`, as mount(8) takes it. */
const SOURCE = /^(?:\[[\da-fA-F:.]+(?:%[\w.-]+)?\]|[A-Za-z\d][A-Za-z\d.-]*):\/[^\s\0\\]*$/;

function optionsOf({ volumeID, device, fields }: Attached, own: string): string {
  const door = v.safeParse(Door, fields);
  if (!door.success || !SOURCE.test(device))
    throw new StorageError(
      "failed-precondition",
      `the attachment of volume ${volumeID} cannot be used: ${door.success ? `"${device}" is not HOST:/PATH` : "its NFS version or options are none"}; look at it with "libstorage volume inspect ${volumeID}"`,
      { volumeID, device },
    );
  const { version, options } = door.output;
  // Trying again is the caller's; later options win over earlier ones.
  return [`vers=${version}`, "hard", "retry=0", options, own].filter((one) => one !== "").join(",");
}

function plain(source: string): string {
  return source.length > 1 ? source.replace(/\/+$/, "") : source;
}

/** Whether a mount is of the exported folder. */
export function isNfsOf({ fsType, source }: MountRecord, device: string): boolean {
  return /^nfs4?$/.test(fsType) && plain(source) === plain(device);
}

export async function isNfsMounted(device: string, given: string): Promise<boolean> {
  const top = mountsAt(await readMountTable(), await canonical(given)).at(-1);
  return top !== undefined && isNfsOf(top, device);
}

export async function nfsMountPoints(device: string): Promise<readonly string[]> {
  return (await readMountTable())
    .filter((record) => isNfsOf(record, device))
    .map(({ mountPoint }) => mountPoint);
}

/** @throws {StorageError} with the reason in mount's words, and what to do about the known ones */
export async function mountNfs(
  host: MountHost,
  attached: Attached,
  { mountPoint: given, options = "" }: { readonly mountPoint: string; readonly options?: string },
  signal: AbortSignal,
): Promise<Mounted> {
  if (options !== "") checkMountOptions(options);
  const { device, volumeID } = attached;
  const all = optionsOf(attached, options);
  if (!host.isRoot)
    throw new StorageError(
      "permission-denied",
      `volume ${volumeID} comes over NFS, which only root can mount`,
      { volumeID },
    );
  const mountPoint = await canonical(given);
  const there = await standingAt(mountPoint, (top) => isNfsOf(top, device));
  if (there.kind === "mount") return { mountPoint, kind: "mount", wasThere: true };
  if (there.kind === "other")
    throw inTheWay(mountPoint, there.what, "remove it, or mount the volume elsewhere");
  await mkdir(dirname(mountPoint), { recursive: true, mode: 0o755 });
  if (there.kind === "nothing") await mkdir(mountPoint, { mode: 0o755 });
  await host
    .exec("mount", ["-t", "nfs", "-o", all, "--", device, mountPoint], {
      signal,
      timeoutMs: MOUNT_MS,
    })
    .catch((error: unknown) => {
      throw mountFailure(attached, error);
    });
  if (!(await isNfsMounted(device, mountPoint)))
    throw new StorageError(
      "internal",
      `mount succeeded, but ${device} does not stand at ${mountPoint}; look at it with findmnt ${mountPoint}`,
      { mountPoint, device },
    );
  return { mountPoint, kind: "mount", wasThere: false };
}

function adviceOf({ stderr, exitCode }: CommandError, device: string): string {
  if (exitCode < 0)
    return `; ${device} gives no answer: look at the network between the hosts, and whether the server listens on port 2049`;
  if (/helper program|unknown filesystem type/i.test(stderr)) return "; install nfs-common";
  if (/access denied|not permitted/i.test(stderr))
    return "; the server does not let this host in by the address from which it comes";
  if (/No such file/i.test(stderr)) return "; the server no longer exports it: mount it again";
  if (/not supported/i.test(stderr)) return "; the server does not speak that version of NFS";
  return "";
}

function mountFailure({ volumeID, device }: Attached, error: unknown): unknown {
  if (!(error instanceof CommandError)) return error;
  return new StorageError(
    error.exitCode < 0 ? error.code : "unavailable",
    `volume ${volumeID} (${device}) cannot be mounted: ${error.message}${adviceOf(error, device)}`,
    { ...error.data, volumeID },
    { cause: error },
  );
}

/**
 * Takes the mount away. One that is in use stays; one whose server is away is forced, and as the last step
 * taken out of sight with a warning, while programs that use it keep waiting.
 */
export async function unmountNfs(
  host: MountHost,
  device: string | undefined,
  { mountPoint: given, removeFolder, signal }: UnmountRequest,
  warn: ((text: string) => void) | undefined,
  table: MountTable = readMountTable,
): Promise<void> {
  const mountPoint = await canonical(given);
  const isWanted = (top: MountRecord): boolean => device === undefined || isNfsOf(top, device);
  const there = await standingAt(mountPoint, isWanted, table);
  if (there.kind === "nothing") return;
  if (there.kind === "other" && there.isMount)
    throw inTheWay(mountPoint, there.what, "it is left as it is");
  if (there.kind === "mount") {
    await writeOut(host, there.top, signal);
    await unmountStepwise(host, mountPoint, signal, warn, table);
  }
  if (removeFolder) await removeEmpty(mountPoint);
}

/**
 * Has everything written while the mount stands: after it is taken out of the kernel's table nobody could tell what is
 * still on its way, and the volume would be taken from this host meanwhile.
 * @throws {StorageError} `deadline-exceeded` when the server is there and it takes too long
 */
async function writeOut(host: MountHost, mount: MountRecord, signal: AbortSignal): Promise<void> {
  const { mountPoint, source } = mount;
  const options = { timeoutMs: WRITE_MS };
  try {
    await whileThere(serverOf(mount), host.unmountMs ?? UNMOUNT_MS, signal, (until) =>
      host.exec("sync", ["--file-system", "--", mountPoint], { ...options, signal: until }),
    );
  } catch (error) {
    if (!(error instanceof CommandError) || error.code === "cancelled") throw error;
    // What the server refuses, as of a volume that another host has now, is lost either way.
    if (error.code !== "deadline-exceeded") return;
    throw new StorageError(
      error.code,
      `${mountPoint} stays mounted: ${source} has not taken all that was written, in ${WRITE_MS / 60_000} minutes; look at the network between the hosts and at the server's disks, and unmount again`,
      { ...error.data, mountPoint },
      { cause: error },
    );
  }
}

async function unmountStepwise(
  host: MountHost,
  mountPoint: string,
  signal: AbortSignal,
  warn: ((text: string) => void) | undefined,
  table: MountTable,
): Promise<void> {
  const isThere = async (): Promise<boolean> =>
    mountsAt(await table(), mountPoint).some(({ fsType }) => /^nfs4?$/.test(fsType));
  try {
    await unmountBusy({ ...host, unmountMs: UNMOUNT_MS }, mountPoint, signal);
    return;
  } catch (error) {
    // Only a server that does not answer is a reason to go on.
    if (!(error instanceof CommandError) || error.code !== "deadline-exceeded") throw error;
  }
  await host
    .exec("umount", ["--force", "--", mountPoint], { signal, timeoutMs: UNMOUNT_MS })
    .catch(() => {});
  await sleep(100);
  if (!(await isThere())) return;
  await host.exec("umount", ["--lazy", "--", mountPoint], { signal, timeoutMs: UNMOUNT_MS });
  warn?.(
    `the NFS server of ${mountPoint} does not answer: it was unmounted lazily; data that it had not taken are lost, and programs that still use it wait until it is back`,
  );
}
