/** What the driver's methods share: checks before a change, and the way back after one that failed. */
import { gibOfBytes, notFound, StorageError } from "@libstorage/model";
import type { OpContext, VolumeRecord } from "../../core/driver.js";
import { failureOf } from "./failures.js";
import { checkId } from "./ids.js";
import type { Parsed, Shelf } from "./shelf.js";
import type { OwnChanges } from "./watch.js";

/** An undo has its own time, since the end of the operation's may be what failed. */
const UNDO_MS = 10 * 60_000;

export type Verb =
  | "create"
  | "remove"
  | "update"
  | "attach"
  | "detach"
  | "expand"
  | "revert"
  | "convert"
  | "shrink";

/** The way to every change of one id. @throws {StorageError} */
export async function change<T extends Parsed, R>(
  own: OwnChanges<T>,
  id: string,
  verb: Verb,
  context: OpContext,
  act: () => Promise<R>,
): Promise<R> {
  checkId(id);
  try {
    context.signal.throwIfAborted();
    own.shelf.check();
    return await own.run(id, verb === "create", act);
  } catch (error) {
    throw failureOf(error, `${verb} ${own.shelf.of.what} ${id}`);
  }
}

function brokenError(what: string, id: string, why: string): StorageError {
  return new StorageError("failed-precondition", `${what} ${id} is broken: ${why}`, {
    resourceID: id,
  });
}

/** @throws {StorageError} `not-found`, or `failed-precondition` when it is broken */
export function existing<T extends Parsed>(shelf: Shelf<T>, id: string): T {
  const found = shelf.read(checkId(id));
  if (found === undefined) throw notFound(shelf.of.what, id);
  if (found.record.broken !== undefined) throw brokenError(shelf.of.what, id, found.record.broken);
  return found;
}

/** The data folder to copy from. @throws {StorageError} when there is none */
export function folderOf<T extends Parsed>(shelf: Shelf<T>, id: string): string {
  const { source } = existing(shelf, id).record;
  if (source.kind === "directory") return source.path;
  throw new StorageError(
    "failed-precondition",
    `${shelf.of.what} ${id} holds no data: it was made by a server that keeps none in snapshots`,
    { resourceID: id },
  );
}

/**
 * What an earlier, equal call has made: its record may be written and not yet synced. Data without a
 * record is never taken for ours: it may be someone's whose record was lost.
 * @throws {StorageError} `already-exists` when something else has the id
 */
export function whatIsThere<T extends Parsed>(
  shelf: Shelf<T>,
  id: string,
  isSame: (record: T["record"]) => boolean,
): T | undefined {
  const there = shelf.read(id);
  if (there === undefined) return undefined;
  const { broken } = there.record;
  if (broken === undefined && isSame(there.record)) return there;
  const why = broken === undefined ? "" : `, though broken: ${broken}`;
  throw new StorageError("already-exists", `there is a ${shelf.of.what} ${id} already${why}`, {
    resourceID: id,
  });
}

/** Whether `there` is what a create of `wanted` makes, and nobody uses it yet. */
export function isSameVolume(there: VolumeRecord, wanted: VolumeRecord): boolean {
  return (
    there.attachments.length === 0 &&
    there.name === wanted.name &&
    there.type === wanted.type &&
    there.iops === wanted.iops &&
    there.availabilityZone === wanted.availabilityZone &&
    gibOfBytes(there.sizeBytes) === gibOfBytes(wanted.sizeBytes)
  );
}

/** Runs `act`; when it fails, takes back what is there of it. */
export async function orUndo(
  act: () => Promise<void>,
  undo: (context: OpContext) => Promise<void>,
  context: OpContext,
): Promise<void> {
  try {
    await act();
  } catch (error) {
    const undoContext = { ...context, signal: AbortSignal.timeout(UNDO_MS) };
    await undo(undoContext).catch((undoError: unknown) =>
      context.log.error({ error: undoError }, "undo failed"),
    );
    throw error;
  }
}

/**
 * Runs `act`; when it fails, brings what is there of it to an end. What comes to its good end all the same has not
 * failed.
 * @param end answers whether the end is the good one
 */
export async function ownEnd(
  act: () => Promise<void>,
  end: (context: OpContext) => Promise<boolean>,
  context: OpContext,
): Promise<void> {
  try {
    await act();
  } catch (error) {
    const endContext = { ...context, signal: AbortSignal.timeout(UNDO_MS) };
    const isDone = await end(endContext).catch((endError: unknown) => {
      context.log.error({ error: endError }, "undo failed");
      return false;
    });
    if (!isDone) throw error;
  }
}
