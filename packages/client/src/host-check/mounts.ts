/** Records and mounts that do not go together. */
import { readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { StorageError } from "@libstorage/model";
import { openExecutor } from "../executor/index.js";
import { removeEmpty } from "../executor/mount-point.js";
import { mountsAt, readMountTable } from "../executor/mount-table.js";
import { withHostLock } from "../host/host-lock.js";
import { readKnown } from "./known.js";
import type { KnownMount } from "./known.js";
import type { Check, CheckOptions, Leftover } from "./leftover.js";

/** Somebody who works on a volume has it for a moment only; who waits for storage is not waited for. */
const LOCK_MS = 2_000;

export async function locked<T>(
  { executors, signal }: CheckOptions,
  file: string,
  act: () => Promise<T>,
): Promise<T> {
  return withHostLock(executors.exec, file, { waitMs: LOCK_MS, signal }, act);
}

async function stands(options: CheckOptions, { record }: KnownMount): Promise<boolean> {
  const executor = openExecutor(record.driver, options.executors);
  const { device, mountPoint, source } = record;
  return (await executor?.isMounted?.(device, mountPoint, source)) === true;
}

/** A record that is not as its phase says, while nobody works on it. */
async function leftoverOf(options: CheckOptions, known: KnownMount): Promise<Leftover | undefined> {
  const { record, records } = known;
  const { volumeID, mountPoint, name, phase } = record;
  const isThere = await stands(options, known);
  if (phase === "mounted" && isThere) return undefined;
  const file = records.fileOf(volumeID);
  if (phase === "mounted")
    return {
      kind: "record-without-mount",
      what: file,
      about: `volume ${volumeID} (${name}) was mounted at ${mountPoint} and is not, as after a restart of the host`,
      fix: async () =>
        locked(options, records.lockOf(volumeID), async () => {
          if (await stands(options, known)) return "it was mounted meanwhile: left as it is";
          if (record.ownsFolder) await removeEmpty(mountPoint);
          await records.remove(volumeID);
          return "removed the record";
        }),
    };
  const doing = phase === "unmounting" ? "an unmount" : "a mount";
  const giveBack = options.giveBack(known);
  const about = `${doing} of volume ${volumeID} (${name}) at ${mountPoint} was begun and not ended`;
  if (giveBack === undefined)
    return {
      kind: "unfinished-mount",
      what: file,
      about,
      instead: `its server is ${known.server}: run "libstorage --host ${known.server} host check --fix"`,
    };
  return {
    kind: "unfinished-mount",
    what: file,
    about,
    fix: async () => {
      await giveBack(volumeID);
      return "unmounted it, and gave it back to the server";
    },
  };
}

export const checkRecords: Check = async (options) => {
  const { mounts, broken } = await readKnown(options);
  const found = [...broken];
  for (const known of mounts) {
    const file = known.records.lockOf(known.record.volumeID);
    // Who works on a volume now has its lock, and its record in between two phases.
    const leftover = await locked(options, file, async () => {
      const record = await known.records.read(known.record.volumeID);
      return record === undefined ? undefined : leftoverOf(options, { ...known, record });
    }).catch((error: unknown) => {
      if (error instanceof StorageError && error.code === "aborted") return undefined;
      throw error;
    });
    if (leftover !== undefined) found.push(leftover);
  }
  return found;
};

/** Mounts below our folder of mounts that no record names. */
export const checkMounts: Check = async (options) => {
  const { mounts, connections } = await readKnown(options);
  const named = new Set(mounts.map(({ record }) => record.mountPoint));
  const found: Leftover[] = [];
  for (const { mountPoint, source, root } of await readMountTable()) {
    if (dirname(mountPoint) !== options.mountPath || named.has(mountPoint)) continue;
    const owner = await ownerOf(options, connections, mountPoint);
    const about = `${source}${root === "/" ? "" : root} is mounted there, and no record of this client says why`;
    if (owner === undefined)
      found.push({
        kind: "mount-without-record",
        what: mountPoint,
        about,
        instead: `nothing says that it is ours: if it is not needed, umount ${mountPoint}`,
      });
    else found.push({ kind: "mount-without-record", what: mountPoint, about, fix: owner });
  }
  return found;
};

/** How to unmount it, if it is the device of one of our connections. */
async function ownerOf(
  { executors, signal }: CheckOptions,
  connections: Awaited<ReturnType<typeof readKnown>>["connections"],
  mountPoint: string,
): Promise<(() => Promise<string>) | undefined> {
  for (const { record } of connections) {
    const executor = openExecutor(record.driver, executors);
    const { device, fields } = record;
    if ((await executor?.isMounted?.(device, mountPoint)) !== true) continue;
    return async () => {
      await executor?.unmount?.({ mountPoint, device, fields, removeFolder: true, signal });
      return "unmounted it";
    };
  }
  return undefined;
}

/** Folders for mounts that a killed process has made and never used. */
export const checkFolders: Check = async (options) => {
  const { mounts } = await readKnown(options);
  const named = new Set(mounts.map(({ record }) => record.mountPoint));
  const table = await readMountTable();
  const names = await readdir(options.mountPath, { withFileTypes: true }).catch(() => []);
  const found: Leftover[] = [];
  for (const entry of names.filter((one) => one.isDirectory())) {
    const path = join(options.mountPath, entry.name);
    if (named.has(path) || mountsAt(table, path).length > 0) continue;
    const content: string[] = await readdir(path).catch(() => ["?"]);
    if (content.length > 0) continue;
    found.push({
      kind: "empty-folder",
      what: path,
      about: "nothing is mounted there, and no record names it",
      fix: async () => {
        await removeEmpty(path);
        return "removed the folder";
      },
    });
  }
  return found;
};
