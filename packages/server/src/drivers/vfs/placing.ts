/**
 * How data and records come and go. Data first and the record last when something is made, the record
 * first when it is removed; what is cut short in between is never listed as whole.
 */
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { copyTree } from "./cp.js";
import { mountsBelow, readMounts } from "./mounts.js";
import type { Parsed, Shelf } from "./shelf.js";
import { syncFileSystem } from "./sync.js";

/** As the reference makes them; the root's own mode keeps others out. */
const DATA_MODE = 0o755;

/** Done to a folder before data comes into it, such as limiting its size. */
export type Prepare = (folder: string) => Promise<void>;

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

/** Makes an empty data folder and writes the record, with one synced folder for both. */
export async function placeEmpty<T extends Parsed>(
  shelf: Shelf<T>,
  id: string,
  text: string,
  context: OpContext,
  prepare: Prepare | undefined,
): Promise<void> {
  await context.files.makeFolder(shelf.dataPath(id), DATA_MODE, { isSyncDeferred: true });
  await prepare?.(shelf.dataPath(id));
  await context.files.write(shelf.recordPath(id), text);
}

/** Copies a data folder under a temporary name, gives it its own, and writes the record. */
export async function placeCopy<T extends Parsed>(
  shelf: Shelf<T>,
  id: string,
  from: string,
  text: string,
  context: OpContext,
  prepare: Prepare | undefined,
): Promise<void> {
  const { files } = context;
  const deferred = { isSyncDeferred: true };
  const copy = shelf.copyPath(id);
  checkNothingMounted(from, `copy ${from}`);
  await files.removeTree(copy, deferred);
  if (prepare !== undefined) {
    await files.makeFolder(copy, DATA_MODE, deferred);
    await prepare(copy);
  }
  await copyTree(from, copy, context);
  await syncFileSystem(context, copy);
  // Without a record this can only be left from an earlier try: ids are never given twice.
  if (shelf.hasData(id)) await files.removeTree(shelf.dataPath(id), deferred);
  await files.rename(copy, shelf.dataPath(id), deferred);
  await files.write(shelf.recordPath(id), text);
}

/** Removes whatever there is of an id; what is not there is fine. */
export async function takeAway<T extends Parsed>(
  shelf: Shelf<T>,
  id: string,
  context: OpContext,
): Promise<void> {
  const { files } = context;
  const deferred = { isSyncDeferred: true };
  const data = shelf.dataPath(id);
  const gone = shelf.gonePath(id);
  checkNothingMounted(data, `remove ${shelf.of.what} ${id}`);
  const hasData = shelf.hasData(id);
  if (shelf.hasRecord(id)) await files.unlink(shelf.recordPath(id), hasData ? deferred : undefined);
  if (hasData) {
    await files.removeTree(gone, deferred);
    await files.rename(data, gone);
  }
  // From here on nothing is to be seen any more, whatever happens.
  await files.removeTree(gone, deferred);
  await files.removeTree(shelf.copyPath(id), deferred);
}
