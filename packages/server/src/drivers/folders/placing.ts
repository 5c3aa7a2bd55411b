/**
 * How data and records come and go. Data first and the record last when something is made, the record
 * first when it is removed; what is cut short in between is never listed as whole.
 */
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import type { Backing, Purpose } from "./backing.js";
import { mountsBelow, readMounts } from "../../core/mounts.js";
import type { Parsed, Shelf } from "./shelf.js";

const DEFERRED = { isSyncDeferred: true };

/** @throws {StorageError} `failed-precondition` when something is mounted in or on the folder */
function checkNothingMounted(folder: string, doing: string): void {
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
  readonly purpose: Purpose;
}

/** Puts data and record of a new id where nothing is yet. The record's synced folder covers both. */
export async function place<T extends Parsed>(
  backing: Backing,
  { shelf, id, text, folder, purpose }: Placing<T>,
  context: OpContext,
): Promise<void> {
  const data = shelf.dataPath(id);
  if (folder === undefined) await backing.make(data, purpose, context);
  else {
    checkNothingMounted(folder, `copy ${folder}`);
    // Under a temporary name until it is whole.
    const copy = backing.isAtomic ? data : shelf.copyPath(id);
    await backing.discard(copy, context);
    await backing.copy(folder, copy, purpose, context);
    if (copy !== data) await context.files.rename(copy, data, DEFERRED);
  }
  await context.files.write(shelf.recordPath(id), text);
}

/** Removes whatever there is of an id; what is not there is fine. */
export async function takeAway<T extends Parsed>(
  backing: Backing,
  shelf: Shelf<T>,
  id: string,
  context: OpContext,
): Promise<void> {
  const { files } = context;
  const data = shelf.dataPath(id);
  const gone = shelf.gonePath(id);
  checkNothingMounted(data, `remove ${shelf.of.what} ${id}`);
  const hasData = shelf.hasData(id);
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
