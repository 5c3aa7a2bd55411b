/** What the journal holds: one entry per step of an operation, chained by hashes. */
import { createHash } from "node:crypto";
import type { ErrorCode, ErrorData, InstanceID } from "@libstorage/model";
import type { VolumeChange } from "./driver.js";
import type { CommandRun } from "./exec.js";

/**
 * intent: about to begin, ids chosen · end: done · failed: not done, and nothing is left of it ·
 * recovered: found open at a start, and taken back (with an error) or done again · settled: answered without any work ·
 * refused: a request with an idempotency key that was turned down.
 */
export type Phase = "intent" | "end" | "failed" | "recovered" | "settled" | "refused";

export interface StoredError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly data: ErrorData;
}

/** What an entry is about; given when it is appended. */
export interface EntryFields {
  readonly phase: Phase;
  readonly operation: string;
  readonly service: string;
  readonly task: number;
  readonly tx: string;
  readonly who: string;
  readonly via: string;
  readonly volumeID?: string;
  readonly snapshotID?: string;
  readonly exportID?: string;
  /** The file of this host that an operation without a service is about. */
  readonly path?: string;
  /** The instance that an attach or detach is about. */
  readonly holder?: InstanceID;
  readonly sizeBytes?: number;
  readonly force?: boolean;
  /** The snapshot that a volume goes back to. */
  readonly from?: string;
  /** What an update makes of the record. */
  readonly change?: VolumeChange;
  /** Scoped by the caller, so that two callers may use the same key. */
  readonly idempotencyKey?: string;
  /** Hash of the request, so that a key is not used for two different ones. */
  readonly request?: string;
  readonly ms?: number;
  readonly commands?: readonly CommandRun[];
  readonly result?: unknown;
  readonly error?: StoredError;
  /** The sequence number of the intent that this entry closes. */
  readonly intent?: number;
  /** The next numbers for new objects, by counter, as they were raised with this entry. */
  readonly counters?: Readonly<Record<string, number>>;
}

export interface JournalEntry extends EntryFields {
  readonly seq: number;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Hash of the entry before this one; empty for the first. */
  readonly prev: string;
}

export function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("base64url").slice(0, 32);
}

/** Whether a repeat of the request is answered with this entry: what was taken back may be tried anew. */
export function isOutcome({
  phase,
  error,
}: Pick<JournalEntry, "phase"> & { readonly error?: unknown }): boolean {
  if (phase === "intent") return false;
  return phase !== "recovered" || error === undefined;
}

/** Whether an entry is news for those who follow the event stream. */
export function isNews({ phase }: JournalEntry): boolean {
  return phase === "end" || phase === "failed" || phase === "recovered";
}
