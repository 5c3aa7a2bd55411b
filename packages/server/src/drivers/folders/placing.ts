/**
 * How data and records come and go. What is cut short in between is never listed as whole: that takes both,
 * and data that are made in several steps get their name last.
 */
import { StorageError } from "@libstorage/model";
import type { AttachmentRecord, OpContext } from "../../core/driver.js";
import type { Backing, Purpose } from "./backing.js";
import { bindMountsOf, mountsBelow, readAllMounts, readMounts } from "../../core/mounts.js";
import { dropRevert } from "./reverting.js";
import type { Parsed, Shelf } from "./shelf.js";

const DEFERRED = { isSyncDeferred: true };

/** @throws {StorageError} `failed-precondition` when something is mounted in or on the folder */
export function checkNothingMounted(folder: string, doing: string): void {
  const [mountPoint] = mountsBelow(readMounts(), folder);
  if (mountPoint === undefined) return;
  throw new StorageError(
    "failed-precondition",
    `cannot ${doing}: something is mounted at ${mountPoint}; unmount it first`,
    { mountPoint },
  );
}

export interface Placing<T extends Parsed> {
  readonly shelf: Shelf<T>;
  readonly id: string;
  /** The record. */
  readonly text: string;
  /** The data to copy; undefined for an empty folder. */
  readonly folder: string | undefined;
  /** Makes the data at a path where nothing is, in place of a copy. */
  readonly receive?: ((to: string) => Promise<void>) | undefined;
  readonly purpose: Purpose;
}

/** Puts data and record of a new id where nothing is yet. */
export async function place<T extends Parsed>(
  backing: Backing,
  placing: Placing<T>,
  context: OpContext,
): Promise<void> {
  await (backing.isAtomic ? placeAtOnce : placeInSteps)(backing, placing, context);
}

/** What is mounted in a folder would be missing in its copy. */
function checkCopyable(folder: string | undefined): void {
  if (folder !== undefined) checkNothingMounted(folder, `copy ${folder}`);
}

/** Data first, under a temporary name until they are whole. The record's synced folder covers both. */
async function placeInSteps<T extends Parsed>(
  backing: Backing,
  { shelf, id, text, folder, receive, purpose }: Placing<T>,
  context: OpContext,
): Promise<void> {
  checkCopyable(folder);
  const data = shelf.dataPath(id);
  if (folder === undefined && receive === undefined) await backing.make(data, purpose, context);
  else {
    const copy = shelf.copyPath(id);
    await backing.discard(copy, context);
    await (folder === undefined ? receive?.(copy) : backing.copy(folder, copy, purpose, context));
    await context.files.rename(copy, data, DEFERRED);
  }
  await context.files.write(shelf.recordPath(id), text);
}

/**
 * The name of the record first, since the copy then takes it to the disk: a commit of its own would cost more
 * than all the rest. What does not build on the other goes on at the same time.
 */
async function placeAtOnce<T extends Parsed>(
  backing: Backing,
  { shelf, id, text, folder, receive, purpose }: Placing<T>,
  context: OpContext,
): Promise<void> {
  const { files } = context;
  const make = (to: string): Promise<void> =>
    folder === undefined
      ? (receive?.(to) ?? backing.make(to, purpose, context))
      : backing.copy(folder, to, purpose, context);
  const data = shelf.dataPath(id);
  const record = shelf.recordPath(id);
  if (folder !== undefined || receive !== undefined) await backing.discard(data, context);
  // Looked at meanwhile; whoever is refused has the record taken back, as after any failure.
  await all(
    files.create(record, text),
    Promise.resolve(folder).then((from) => checkCopyable(from)),
  );
  await all(files.syncFile(record), make(data));
  if (folder === undefined || purpose.what === "volume") await files.syncFolder(shelf.folder);
}

/** Waits for all of them, even when one fails: what undoes them must come after them. */
async function all(...steps: readonly Promise<void>[]): Promise<void> {
  for (const step of await Promise.allSettled(steps))
    if (step.status === "rejected") throw step.reason;
}

/** @throws {StorageError} `failed-precondition` when something is mounted in or on its data */
export function checkRemovable<T extends Parsed>(shelf: Shelf<T>, id: string): void {
  checkNothingMounted(shelf.dataPath(id), `remove ${shelf.of.what} ${id}`);
}

/**
 * Removes whatever there is of an id; what is not there is fine.
 * @param isRemovable `checkRemovable` has just passed; otherwise it is checked here
 */
export async function takeAway<T extends Parsed>(
  backing: Pick<Backing, "isAtomic" | "discard">,
  shelf: Shelf<T>,
  id: string,
  context: OpContext,
  isRemovable = false,
): Promise<void> {
  const { files } = context;
  const data = shelf.dataPath(id);
  const gone = shelf.gonePath(id);
  if (!isRemovable) checkRemovable(shelf, id);
  await dropRevert(backing, shelf, id, context);
  const hasData = shelf.hasData(id);
  // Before the data: the commit of their end takes this to the disk, too.
  if (shelf.hasRecord(id)) await files.unlink(shelf.recordPath(id), hasData ? DEFERRED : undefined);
  if (hasData && backing.isAtomic) await backing.discard(data, context);
  else if (hasData) {
    await backing.discard(gone, context);
    await files.rename(data, gone);
  }
  // From here on nothing is to be seen any more, whatever happens.
  await backing.discard(gone, context);
  await backing.discard(shelf.copyPath(id), context);
}

/** Tries twice: what stays even so is found by the next list. */
export async function removeAll(
  backing: Pick<Backing, "discard">,
  paths: readonly string[],
  context: OpContext,
): Promise<void> {
  const remove = (path: string): Promise<void> => backing.discard(path, context);
  for (const path of paths)
    await remove(path)
      .catch(() => remove(path))
      .catch((error: unknown) =>
        context.log.warn({ error, path }, "a leftover could not be removed"),
      );
}

/**
 * @param exported other holders, whose exporter may have mounted what it exports
 * @throws {StorageError} `failed-precondition` while the folder is used through a bind mount on this host
 */
export function checkUnmounted(
  path: string,
  id: string,
  doing: string,
  exported: readonly AttachmentRecord[],
): void {
  const own = readMounts();
  const mountPoint = bindMountsOf(own, readAllMounts(own), path).find(
    (one) => !exported.some(({ deviceName }) => deviceName.endsWith(`:${one}`)),
  );
  if (mountPoint === undefined) return;
  throw new StorageError(
    "failed-precondition",
    `volume ${id} cannot ${doing}: it is still mounted at ${mountPoint} on this host; unmount it there and try again`,
    { volumeID: id, mountPoint },
  );
}
