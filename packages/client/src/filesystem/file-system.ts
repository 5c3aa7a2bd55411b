/**
 * The file system of a volume: made once on a device that is provably blank, checked before each mount, grown
 * with its device. A device is touched only right after it has proven to be the volume.
 */
import { createHash } from "node:crypto";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../executor/exec.js";
import type { Exec } from "../executor/exec.js";
import type { WantedFileSystem } from "../executor/executor.js";
import { FILE_SYSTEM_TYPES, FILE_SYSTEMS } from "./kinds.js";
import type { FileSystemKind } from "./kinds.js";
import { probe } from "./probe.js";

/** What is known of a device while its file system is worked on. */
export interface VolumeDevice {
  readonly volumeID: string;
  /** This host's turn of having the volume; empty when it is not known. */
  readonly turn?: string;
  readonly exec: Exec;
  readonly signal: AbortSignal;
  readonly warn?: (text: string) => void;
  /** The node, after the device has proven anew to be the volume. @throws {StorageError} */
  readonly prove: () => Promise<string>;
}

const PROBE_MS = 30_000;
const MAKE_MS = 10 * 60_000;
/** A check of a large damaged file system takes its time. */
const CHECK_MS = 60 * 60_000;
const GROW_MS = 10 * 60_000;

/** e2fsck(8), "EXIT CODE": a sum of bits. */
const CHECK = { corrected: 1, reboot: 2, uncorrected: 4 } as const;

function refused(volumeID: string, message: string, cause?: unknown): StorageError {
  return new StorageError("failed-precondition", message, { volumeID }, { cause });
}

/** @throws {StorageError} `invalid-argument` for one that this client does not make */
export function kindOf(type: string): FileSystemKind {
  const name = type.toLowerCase();
  const kind = Object.hasOwn(FILE_SYSTEMS, name) ? FILE_SYSTEMS[name] : undefined;
  if (kind !== undefined) return kind;
  throw new StorageError(
    "invalid-argument",
    `"${type}" is no file system for volumes: there are ${FILE_SYSTEM_TYPES.join(", ")}`,
    { fsType: type },
  );
}

/**
 * Makes sure that the device has a file system that can be mounted.
 * @param wanted left out: nothing is made
 * @param isReadOnly nothing is written, so nothing is made or corrected
 * @throws {StorageError} `failed-precondition` when something else is on it, by its kind
 */
export async function ensureFileSystem(
  device: VolumeDevice,
  wanted: WantedFileSystem | undefined,
  isReadOnly: boolean,
): Promise<{ readonly kind: FileSystemKind; readonly wasMade: boolean }> {
  const { volumeID, exec, signal } = device;
  const node = await device.prove();
  const content = await probe(exec, node, { signal, timeoutMs: PROBE_MS });
  if (content.kind === "other")
    throw refused(
      volumeID,
      `volume ${volumeID} is neither formatted nor mounted: on ${node} there is ${content.what}. Look with "wipefs ${node}"; if it is not needed, remove it with "wipefs --all ${node}" and "blkdiscard --zeroout --length 1MiB ${node}"`,
    );
  if (content.kind === "blank") {
    if (wanted === undefined || isReadOnly)
      throw refused(
        volumeID,
        `volume ${volumeID} has no file system, and ${isReadOnly ? "a read-only mount" : "this call"} makes none`,
      );
    const kind = kindOf(wanted.type);
    await makeFileSystem(device, kind, wanted.formatting);
    return { kind, wasMade: true };
  }
  const kind = Object.hasOwn(FILE_SYSTEMS, content.type) ? FILE_SYSTEMS[content.type] : undefined;
  if (kind === undefined)
    throw refused(
      volumeID,
      `volume ${volumeID} is not mounted: it has a file system ${content.type}, and this client mounts ${FILE_SYSTEM_TYPES.join(", ")}`,
    );
  if (wanted?.isAsked === true && kindOf(wanted.type) !== kind)
    throw refused(
      volumeID,
      `volume ${volumeID} is not mounted: it has a file system ${content.type}, and ${wanted.type} was asked for; mount it without naming one`,
    );
  if (!isReadOnly) await checkFileSystem(device, kind);
  return { kind, wasMade: false };
}

/** It tells an operator which volume a disk is, and can be nobody's own label in an fstab. */
function labelOf(volumeID: string, length: number): string {
  const id = volumeID.replaceAll(/[^A-Za-z0-9]/g, "");
  return `ls-${id.slice(-Math.min(length - 3, 12))}`;
}

/**
 * Of the file systems that this host makes on a volume in one turn of having it, so that it can tell them from
 * those that others make; undefined where turns cannot be told apart.
 */
export function ownUUID({ volumeID, turn = "" }: VolumeDevice): string | undefined {
  if (turn === "") return undefined;
  const hex = createHash("sha256")
    .update(JSON.stringify([volumeID, turn]))
    .digest("hex");
  // As RFC 9562 has those that are made of something, version 8.
  const parts = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    `8${hex.slice(13, 16)}`,
    `8${hex.slice(17, 20)}`,
  ];
  return [...parts, hex.slice(20, 32)].join("-");
}

async function makeFileSystem(
  device: VolumeDevice,
  kind: FileSystemKind,
  formatting: WantedFileSystem["formatting"],
): Promise<void> {
  const { volumeID, exec, signal } = device;
  await formatting?.(true);
  const node = await device.prove();
  const [tool, ...args] = kind.make(node, labelOf(volumeID, kind.labelLength), ownUUID(device));
  try {
    await exec(tool, args, { signal, timeoutMs: MAKE_MS });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw await failedMake(device, kind, node, error);
  }
  await formatting?.(false);
}

/** A device that has gone looks like a bad one to mkfs: which it was is asked. */
async function failedMake(
  device: VolumeDevice,
  kind: FileSystemKind,
  node: string,
  error: CommandError,
): Promise<StorageError> {
  const { volumeID } = device;
  const lost = await device.prove().then(
    () => undefined,
    (reason: unknown) => (reason instanceof Error ? reason.message : String(reason)),
  );
  if (lost !== undefined)
    return new StorageError(
      "unavailable",
      `the device of volume ${volumeID} went away while ${kind.type} was being made on it (${lost}), and has no file system now: when it is back, mount it again, which makes it anew; if another host has had it meanwhile, clear it by hand first, with "wipefs --all" and "blkdiscard --zeroout --length 1MiB"`,
      { ...error.data, volumeID },
      { cause: error },
    );
  return new StorageError(
    error.code,
    `${kind.type} cannot be made on ${node} of volume ${volumeID}: ${withPackage(error, kind)}`,
    { ...error.data, volumeID },
    { cause: error },
  );
}

function withPackage({ message }: CommandError, { tools }: FileSystemKind): string {
  return /is not installed/.test(message) ? `${message}: install ${tools}` : message;
}

async function checkFileSystem(device: VolumeDevice, kind: FileSystemKind): Promise<void> {
  const { volumeID, exec, signal, warn } = device;
  const node = await device.prove();
  const command = kind.check?.(node);
  if (command === undefined) return;
  const [tool, ...args] = command;
  try {
    await exec(tool, args, { signal, timeoutMs: CHECK_MS });
  } catch (error) {
    if (!(error instanceof CommandError) || error.exitCode < 0) throw error;
    if (error.exitCode <= (CHECK.corrected | CHECK.reboot)) {
      warn?.(`${tool} has corrected the file system of volume ${volumeID}`);
      return;
    }
    if ((error.exitCode & CHECK.uncorrected) !== 0)
      throw refused(
        volumeID,
        `volume ${volumeID} is not mounted: its file system has errors that need a decision; run "${kind.repair(node)}" and mount it again`,
        error,
      );
    throw refused(
      volumeID,
      `volume ${volumeID} is not mounted: ${tool} could not check it: ${withPackage(error, kind)}`,
      error,
    );
  }
}

/** @throws {StorageError} the tool's refusal, by its code */
export async function growFileSystem(
  { volumeID, exec, signal }: Pick<VolumeDevice, "volumeID" | "exec" | "signal">,
  kind: FileSystemKind,
  node: string,
  mountPoint: string,
): Promise<void> {
  const [tool, ...args] = kind.grow(node, mountPoint);
  try {
    await exec(tool, args, { signal, timeoutMs: GROW_MS });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    throw new StorageError(
      error.code,
      `volume ${volumeID} has its new size, but the ${kind.type} at ${mountPoint} was not fitted to it: ${withPackage(error, kind)}; it can be used as it is, and is fitted when it is mounted again or expanded once more`,
      { ...error.data, volumeID },
      { cause: error },
    );
  }
}
