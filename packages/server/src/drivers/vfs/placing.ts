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

const DEFERRED = { isSyncDeferred: true };

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

export interface Placing<T extends Parsed> {
  readonly shelf: Shelf<T>;
  readonly id: string;
  /** The record. */
  readonly text: string;
  /** The data to copy; undefined for an empty folder. */
  readonly folder: string | undefined;
  readonly prepare?: Prepare | undefined;
}

/** Puts data and record of a new id where nothing is yet. The record's synced folder covers both. */
export async function place<T extends Parsed>(
  placing: Placing<T>,
  context: OpContext,
): Promise<void> {
  const { shelf, id, text, folder, prepare } = placing;
  if (folder === undefined) {
    await context.files.makeFolder(shelf.dataPath(id), DATA_MODE, DEFERRED);
    await prepare?.(shelf.dataPath(id));
  } else await placeCopy(placing, folder, context);
  await context.files.write(shelf.recordPath(id), text);
}

/** Copies a folder under a temporary name, and gives it its own when it is whole and synced. */
async function placeCopy<T extends Parsed>(
  { shelf, id, prepare }: Placing<T>,
  folder: string,
  context: OpContext,
): Promise<void> {
  const { files } = context;
  const copy = shelf.copyPath(id);
  checkNothingMounted(folder, `copy ${folder}`);
  await files.removeTree(copy, DEFERRED);
  if (prepare !== undefined) {
    await files.makeFolder(copy, DATA_MODE, DEFERRED);
    await prepare(copy);
  }
  await copyTree(folder, copy, context);
  await syncFileSystem(context, copy);
  await files.rename(copy, shelf.dataPath(id), DEFERRED);
}

/** Removes whatever there is of an id; what is not there is fine. */
export async function takeAway<T extends Parsed>(
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
  if (hasData) {
    await files.removeTree(gone, DEFERRED);
    await files.rename(data, gone);
  }
  // From here on nothing is to be seen any more, whatever happens.
  await files.removeTree(gone, DEFERRED);
  await files.removeTree(shelf.copyPath(id), DEFERRED);
}
