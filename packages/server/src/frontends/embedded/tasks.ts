/** Tasks as the API shows them; their results in the shapes that the synchronous calls answer. */
import { StorageError } from "@libstorage/model";
import type { ErrorData, Task } from "@libstorage/model";
import type { SnapshotRecord, VolumeRecord } from "../../core/driver.js";
import type { StoredError } from "../../core/journal-entry.js";
import type { Attached } from "../../core/changes.js";
import type { TaskRecord } from "../../core/tasks.js";
import type { OpenDoor } from "../../core/doors.js";
import { addedExport } from "./export-wire.js";
import { snapshotOf, volumeWith } from "./wire.js";

type Present = (result: never) => unknown;

/** The answer of each write, from what the core gave or the journal kept. */
export const ANSWERS = {
  volumeCreate: (volume: VolumeRecord) => volumeWith(volume, [], 3),
  volumeCopy: (volume: VolumeRecord) => volumeWith(volume, [], 3),
  volumeCreateFromSnapshot: (volume: VolumeRecord) => volumeWith(volume, []),
  volumeUpload: (volume: VolumeRecord) => volumeWith(volume, [], 3),
  volumeExpand: (volume: VolumeRecord) => volumeWith(volume, []),
  volumeRevert: (volume: VolumeRecord) => volumeWith(volume, []),
  volumeUpdate: (volume: VolumeRecord) => volumeWith(volume, []),
  volumeShrink: (volume: VolumeRecord) => volumeWith(volume, []),
  volumeConvert: (volume: VolumeRecord) => volumeWith(volume, []),
  volumeAttach: ({ volume, attachment, attachToken }: Attached) => ({
    volume: volumeWith(volume, [attachment], 2),
    attachToken,
  }),
  volumeDetach: (volume: VolumeRecord) => volumeWith(volume, [], 3),
  volumeSnapshot: (snapshot: SnapshotRecord) => snapshotOf(snapshot),
  snapshotCopy: (snapshot: SnapshotRecord) => snapshotOf(snapshot),
  volumeRemove: (_nothing: null) => null,
  snapshotRemove: (_nothing: null) => null,
  exportAdd: addedExport,
  exportUpdate: addedExport,
  exportHide: addedExport,
  exportRemove: (left: OpenDoor | null) => left && addedExport(left),
} as const satisfies Record<string, Present>;

function presented(operation: string, result: unknown): unknown {
  if (!Object.hasOwn(ANSWERS, operation)) return result;
  const present = ANSWERS[operation as keyof typeof ANSWERS] as (value: unknown) => unknown;
  return present(result);
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000);
}

/** The bare error of a task: its text, or its data with the text as `msg`. */
function errorOf({ message, data }: StoredError): unknown {
  return Object.keys(data).length === 0 ? message : withMessage(data, message);
}

function withMessage(data: ErrorData, msg: string): Record<string, unknown> {
  const all: Record<string, unknown> = { ...data, msg };
  return Object.fromEntries(
    Object.keys(all)
      .toSorted()
      .map((key) => [key, all[key]]),
  );
}

/** Members in wire order. A result of null, as removals have, is left out. */
export function taskOf(record: TaskRecord): Task {
  const { id, operation, completeTime, queueTime, startTime, state, result, error, progress } =
    record;
  const answer = result === undefined ? undefined : presented(operation, result);
  return {
    id,
    ...(completeTime !== undefined && { completeTime: seconds(completeTime) }),
    queueTime: seconds(queueTime),
    ...(startTime !== undefined && { startTime: seconds(startTime) }),
    state,
    ...(answer !== undefined && answer !== null && { result: answer }),
    ...(error !== undefined && { error: errorOf(error), errorCode: error.code }),
    operation,
    ...(progress !== undefined && { progress }),
  };
}

/** @throws {StorageError} `not-found` */
export function taskNumber(text: string): number {
  const id = /^\d{1,15}$/.test(text) ? Number(text) : -1;
  if (id < 0) throw new StorageError("not-found", `task ${text} not found`, { resourceID: text });
  return id;
}
