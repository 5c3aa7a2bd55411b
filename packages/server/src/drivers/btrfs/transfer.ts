/** From one btrfs file system to another: a read-only snapshot of the source goes through send and receive. */
import { randomUUID } from "node:crypto";
import { lstatSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { StorageError } from "@libstorage/model";
import { TEMPORARY_PREFIX } from "../../core/files.js";
import { mountOf, readMounts } from "../../core/mounts.js";
import type { OpContext } from "../../core/driver.js";
import { usedBytes } from "../folders/du.js";
import { WrittenBytes } from "../folders/written-bytes.js";
import { createSubvolume, sendSubvolume, snapshotSubvolume } from "./btrfs.js";
import { isReadOnly, isSubvolume } from "./stats.js";

/** Names, in the root of a service, of snapshots that are made to be sent. */
export const SENT_PREFIX = `${TEMPORARY_PREFIX}sent-`;

/** How long clearing up may take; the operation's own time may be over. */
const CLEAR_MS = 10 * 60_000;

/** What is being sent now. The service that it is taken from knows nothing of it. */
export const sending = new Set<string>();

export type Discard = (path: string, context: OpContext) => Promise<void>;

/** Absolute paths without links; what they name need not be there. */
export function isOnOneFileSystem(a: string, b: string): boolean {
  const mounts = readMounts();
  const device = mountOf(mounts, a)?.device;
  return device !== undefined && device === mountOf(mounts, b)?.device;
}

/** Snapshots that an earlier run has made to be sent. */
export function leftSent(root: string): string[] {
  return readdirSync(root)
    .filter((name) => name.startsWith(SENT_PREFIX))
    .map((name) => join(root, name))
    .filter((path) => !sending.has(path));
}

/**
 * Makes `to`, where nothing is, a writable subvolume with the content of `from`, the data of a volume of
 * another service. Tells the progress in bytes; how many there are is an estimate.
 * Nothing but `to` is left, whatever happens; after the end of the server, what is left is found by its name.
 */
export async function transfer(
  from: string,
  to: string,
  discard: Discard,
  context: OpContext,
): Promise<void> {
  // Not beside the volume, where the service it belongs to would take it for a leftover.
  const sent = join(dirname(dirname(from)), `${SENT_PREFIX}${randomUUID()}`);
  // Where a shelf expects a copy that is being put together. What is in a subvolume goes with it, read-only
  // subvolumes too.
  const folder = join(dirname(to), `${TEMPORARY_PREFIX}copy-${basename(to)}`);
  sending.add(sent);
  try {
    await discard(folder, context);
    await snapshotSubvolume(context, from, sent, true);
    await createSubvolume(context, folder);
    await send(sent, folder, context);
    await snapshotSubvolume(context, join(folder, basename(sent)), to, false);
  } finally {
    const own = { ...context, signal: AbortSignal.timeout(CLEAR_MS) };
    for (const path of [sent, folder]) await discardSurely(path, discard, own);
    sending.delete(sent);
  }
}

async function send(sent: string, folder: string, context: OpContext): Promise<void> {
  const written = new WrittenBytes(await usedBytes(context, sent), context);
  try {
    await sendSubvolume(context, sent, folder, (pid) => written.watch(pid));
    written.done();
  } finally {
    written.stop();
  }
  const received = join(folder, basename(sent));
  const stats = lstatSync(received, { throwIfNoEntry: false });
  // What has come in part stays writable.
  if (stats === undefined || !isSubvolume(stats) || !isReadOnly(received))
    throw new StorageError("internal", `btrfs receive made no whole subvolume of ${sent}`, {
      path: received,
    });
}

/** Tries twice: what stays even so is found by the next list. */
export async function discardSurely(
  path: string,
  discard: Discard,
  context: OpContext,
): Promise<void> {
  const remove = (): Promise<void> => discard(path, context);
  await remove()
    .catch(remove)
    .catch((error: unknown) =>
      context.log.warn({ error, path }, "a leftover could not be removed"),
    );
}
