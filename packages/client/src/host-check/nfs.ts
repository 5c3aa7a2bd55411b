/** NFS mounts of ours whose server has taken them away, or does not answer. */
import { CommandError } from "../executor/exec.js";
import { openExecutor } from "../executor/index.js";
import { isNfsMounted } from "../transports/nfs.js";
import { readKnown } from "./known.js";
import type { KnownMount } from "./known.js";
import type { Check, CheckOptions, Leftover } from "./leftover.js";
import { locked } from "./mounts.js";

const LOOK_MS = 5_000;

/** Asked by a process of its own: this one would hang with it. */
async function lookAt(
  { executors, signal }: CheckOptions,
  mountPoint: string,
): Promise<"alive" | "stale" | "refused" | "silent"> {
  try {
    // The state of the file system is the server's to tell; that of a folder may be remembered.
    await executors.exec("stat", ["--file-system", "--format=%i", "--", mountPoint], {
      signal,
      timeoutMs: LOOK_MS,
    });
    return "alive";
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    if (error.exitCode < 0) return "silent";
    if (/stale/i.test(error.stderr)) return "stale";
    // So answers a server that still exports other folders to this host, and no longer this one.
    return /denied|not permitted/i.test(error.stderr) ? "refused" : "alive";
  }
}

async function takeAway(options: CheckOptions, { record, records }: KnownMount): Promise<string> {
  const { volumeID, mountPoint, device, fields, ownsFolder: removeFolder } = record;
  return locked(options, records.lockOf(volumeID), async () => {
    const executor = openExecutor(record.driver, options.executors);
    const { signal } = options;
    await executor?.unmount?.({ mountPoint, device, fields, removeFolder, signal });
    await records.remove(volumeID);
    return "unmounted it, and removed its record";
  });
}

/** Whether the server says that the volume is not attached to this host. */
async function isTaken(options: CheckOptions, known: KnownMount): Promise<boolean> {
  const attachments = await options.attachments(known);
  return attachments.known && !attachments.volumeIDs.has(known.record.volumeID);
}

async function leftoverOf(options: CheckOptions, known: KnownMount): Promise<Leftover | undefined> {
  const { device, mountPoint, volumeID } = known.record;
  if (!(await isNfsMounted(device, mountPoint))) return undefined;
  const state = await lookAt(options, mountPoint);
  if (state === "alive") return undefined;
  if (state === "refused" && !(await isTaken(options, known)))
    return {
      kind: "nfs-stale",
      what: mountPoint,
      about: `the server of ${device} does not let this host use volume ${volumeID}, and does not say that it has taken it`,
      instead: `look at the server's exports; then "libstorage volume unmount --force ${volumeID}" and mount it again`,
    };
  if (state === "silent")
    return {
      kind: "nfs-silent",
      what: mountPoint,
      about: `the server of ${device} (volume ${volumeID}) does not answer; programs that use it wait until it does`,
      instead: `wait for the server, or give the volume up with "libstorage volume unmount --force ${volumeID}"`,
    };
  return {
    kind: "nfs-stale",
    what: mountPoint,
    about: `the server of ${device} has taken volume ${volumeID} from this host: every use of it fails`,
    fix: () => takeAway(options, known),
  };
}

export const checkNfs: Check = async (options) => {
  const { mounts } = await readKnown(options);
  const found: Leftover[] = [];
  for (const known of mounts.filter(({ record }) => record.device.includes(":/"))) {
    const leftover = await leftoverOf(options, known);
    if (leftover !== undefined) found.push(leftover);
  }
  return found;
};
