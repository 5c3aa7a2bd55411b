/**
 * Data that are changed for others as a whole: those that a volume goes back to. They are put together beside the
 * volume's own; then their record is written beside them, and from there on only one thing is left to do: names are
 * changed until the new data and the new record have the volume's. What is cut short before that record is taken back,
 * and what is cut short after it is brought to its end, both from the names alone.
 */
import { lstatSync } from "node:fs";
import type { OpContext } from "../../core/driver.js";
import type { Backing } from "./backing.js";
import type { Parsed, Shelf } from "./shelf.js";

const DEFERRED = { isSyncDeferred: true };

type Remover = Pick<Backing, "discard">;

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/**
 * @param build puts the data at a path where nothing is, on the disk but for its name. @returns the record
 * @throws what `build` throws; the volume is as it was then
 */
export async function exchange<T extends Parsed>(
  remover: Remover,
  shelf: Shelf<T>,
  id: string,
  build: (path: string) => Promise<string>,
  context: OpContext,
): Promise<void> {
  await settle(remover, shelf, id, context);
  const text = await build(shelf.nextPath(id));
  // Its synced folder covers the name of the data, too.
  await context.files.write(shelf.nextRecordPath(id), text);
  await settle(remover, shelf, id, context);
}

/** Brings an exchange that was cut short to one of its two ends. @returns whether the volume has the new data now */
export async function settle<T extends Parsed>(
  remover: Remover,
  shelf: Shelf<T>,
  id: string,
  context: OpContext,
): Promise<boolean> {
  const { files } = context;
  const [data, next] = [shelf.dataPath(id), shelf.nextPath(id)];
  const [record, previous] = [shelf.nextRecordPath(id), shelf.previousPath(id)];
  const isWhole = isThere(record);
  if (isWhole) {
    if (isThere(next)) {
      if (isThere(data)) await files.rename(data, previous);
      await files.rename(next, data);
    }
    await files.rename(record, shelf.recordPath(id));
  } else if (isThere(next)) await remover.discard(next, context);
  if (isThere(previous)) {
    // Without data of the volume's name these are the only ones.
    if (isThere(data)) await remover.discard(previous, context);
    else await files.rename(previous, data);
  }
  return isWhole;
}

/** Ends what was cut short of several volumes. What cannot be ended is found by the next list. */
export async function settleAll<T extends Parsed>(
  remover: Remover,
  shelf: Shelf<T>,
  ids: ReadonlySet<string>,
  context: OpContext,
): Promise<void> {
  const end = (id: string): Promise<unknown> =>
    settle(remover, shelf, id, context).catch((error: unknown) =>
      context.log.warn({ error, volumeID: id }, "a revert that was cut short could not be ended"),
    );
  await Promise.all([...ids].map(end));
}

/** Removes what an exchange has left of a volume that goes itself. */
export async function dropRevert<T extends Parsed>(
  remover: Remover,
  shelf: Shelf<T>,
  id: string,
  context: OpContext,
): Promise<void> {
  const { files } = context;
  const record = shelf.nextRecordPath(id);
  if (isThere(record)) await files.unlink(record, DEFERRED);
  for (const path of [shelf.nextPath(id), shelf.previousPath(id)])
    if (isThere(path)) await remover.discard(path, context);
}
