/**
 * What is left of a file system that was being made when mkfs or its caller ended. It looks like somebody's data:
 * it is to be cleared only by who has a record, on the disk since before mkfs, that the device was proven blank,
 * and who knows that nobody else has had the device since.
 */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import pRetry from "p-retry";
import { StorageError } from "@libstorage/model";
import { numbersOf, refuseElsewhere } from "./device-mount.js";
import { ownUUID } from "./file-system.js";
import type { VolumeDevice } from "./file-system.js";
import { probe } from "./probe.js";
import type { Content } from "./probe.js";

const TOOL_MS = 60_000;
const START_BYTES = 1024 ** 2;
/** The mkfs of a process that was killed goes on without it. */
const BUSY_MS = 10_000;

/**
 * Makes the device blank again. What mkfs leaves of no file system of ours stays as it is, and the mount that
 * follows says what it is: somebody may have put it there by hand.
 * @throws {StorageError} `failed-precondition` while it is mounted; `unavailable` while it is in use
 */
export async function clearRemains(device: VolumeDevice): Promise<void> {
  const { volumeID, exec, signal, prove } = device;
  const limits = { signal, timeoutMs: TOOL_MS };
  const found = await prove();
  const numbers = await numbersOf(found);
  if (numbers !== undefined) await refuseElsewhere(volumeID, numbers);
  await untilFree(device, found);
  if (!isOfMkfs(device, await probe(exec, await prove(), limits))) return;
  const node = await prove();
  await exec("wipefs", ["--all", "--quiet", "--", node], limits);
  const size = `bs=${START_BYTES}`;
  await exec("dd", ["if=/dev/zero", `of=${node}`, size, "count=1", "conv=fsync"], limits);
}

/** A file system that is almost there has its UUID; of one that is not there is no more than bytes. */
function isOfMkfs(device: VolumeDevice, content: Content): boolean {
  if (content.kind === "filesystem")
    return content.uuid !== undefined && content.uuid === ownUUID(device);
  return content.kind === "other" && content.isUnknown === true;
}

/** Who has a device for itself alone keeps others from it: mkfs, a mount, a device on top; see open(2), O_EXCL. */
async function untilFree({ volumeID, signal }: VolumeDevice, node: string): Promise<void> {
  const isBusy = (error: unknown): boolean =>
    error instanceof Error && "code" in error && error.code === "EBUSY";
  const tryIt = async (): Promise<void> => {
    await (await open(node, constants.O_RDONLY | constants.O_EXCL)).close();
  };
  const times = { minTimeout: 20, maxTimeout: 500, retries: 1000, maxRetryTime: BUSY_MS };
  try {
    await pRetry(tryIt, { ...times, signal, shouldRetry: ({ error }) => isBusy(error) });
  } catch (error) {
    if (!isBusy(error)) throw error;
    throw new StorageError(
      "unavailable",
      `volume ${volumeID} was being formatted when that ended, and something uses ${node} still, such as the mkfs of then: try again, or look with "fuser ${node}"`,
      { volumeID, device: node },
      { cause: error },
    );
  }
}
