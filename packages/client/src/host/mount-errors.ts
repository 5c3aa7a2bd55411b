/** What can go wrong around a mount, in words for people. */
import { StorageError } from "@libstorage/model";
import type { Volume } from "@libstorage/model";
import type { MountRecordFile } from "./mount-records.js";

export function holdersOfVolume(volume: Volume): readonly string[] {
  return (volume.attachments ?? []).map((one) => one.instanceID?.id ?? "unknown");
}

/** The volume is still mounted here, but the server has given it to somebody else. */
export function heldBy(volume: Volume, mountPoint: string): StorageError {
  const holders = holdersOfVolume(volume);
  return new StorageError(
    "failed-precondition",
    `volume ${volume.id} (${volume.name}) is still mounted at ${mountPoint}, but is ${holders.length === 0 ? "no longer attached to this host" : `attached to ${holders.join(", ")}`}: unmount it here before anything writes to it, then mount it again`,
    { volumeID: volume.id, mountPoint, holders },
  );
}

export function notHere(volume: Volume): StorageError {
  const holders = holdersOfVolume(volume);
  return new StorageError(
    "failed-precondition",
    `volume ${volume.id} (${volume.name}) is not mounted on this host${holders.length === 0 ? "; it is attached nowhere" : `; it is attached to ${holders.join(", ")}`}`,
    { volumeID: volume.id, holders },
  );
}

export const failing = {
  noMount: (volume: string, driver: string) =>
    new StorageError(
      "unimplemented",
      `volume ${volume} cannot be mounted: volumes of the driver ${driver} have no data that this host could reach`,
      { driver },
    ),
  noDevice: (volumeID: string) =>
    new StorageError(
      "internal",
      `volume ${volumeID}: no device name returned; detach it and mount it again`,
      { volumeID },
    ),
  notAttached: (volumeID: string) =>
    new StorageError("internal", `volume ${volumeID} did not attach to this host`, { volumeID }),
  elsewhere: ({ id, name }: Volume, mountPoint: string, wanted: string) =>
    new StorageError(
      "failed-precondition",
      `volume ${id} (${name}) is mounted at ${mountPoint}: unmount it there before you mount it at ${wanted}`,
      { volumeID: id, mountPoint },
    ),
  namedUsers: ({ volumeID, name, namedUsers, mountPoint }: MountRecordFile) =>
    new StorageError(
      "failed-precondition",
      `volume ${volumeID} (${name}) is mounted at ${mountPoint} for ${namedUsers.length} ${namedUsers.length === 1 ? "container" : "containers"} only (${namedUsers.map((one) => one.slice(0, 12)).join(", ")}): stop them, or unmount with force`,
      { volumeID, users: namedUsers },
    ),
  undo: (error: unknown, failure: unknown) =>
    new StorageError(
      error instanceof StorageError ? error.code : "internal",
      `${textOf(error)}; and it could not be undone: ${textOf(failure)}; unmount the volume to clean up`,
      error instanceof StorageError ? error.data : {},
      { cause: error },
    ),
} as const;

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether the same mount may succeed a little later. */
export function mayPass(error: unknown): boolean {
  if (!(error instanceof StorageError)) return true;
  return ["unavailable", "deadline-exceeded", "internal", "aborted"].includes(error.code);
}

/** Whether a request may have been carried out though it failed here: its answer was not waited for, or lost. */
export function mayHaveHappened(error: unknown): boolean {
  return mayPass(error) || (error instanceof StorageError && error.code === "cancelled");
}
