/** Errors as gRPC statuses; the only place where the codes of both meet. */
import type { status } from "@grpc/grpc-js";
import { StorageError } from "@libstorage/model";
import type { ErrorCode } from "@libstorage/model";

export type StatusName = Exclude<keyof typeof status, "OK">;

/** A refusal with exactly the status that the specification's tables ask for. */
export class CsiError extends Error {
  override readonly name = "CsiError";
  readonly status: StatusName;

  constructor(code: StatusName, message: string, options?: ErrorOptions) {
    super(message, options);
    this.status = code;
  }
}

const STATUS = {
  "invalid-argument": "INVALID_ARGUMENT",
  unauthenticated: "UNAUTHENTICATED",
  "permission-denied": "PERMISSION_DENIED",
  "not-found": "NOT_FOUND",
  "already-exists": "ALREADY_EXISTS",
  "failed-precondition": "FAILED_PRECONDITION",
  aborted: "ABORTED",
  cancelled: "CANCELLED",
  "resource-exhausted": "RESOURCE_EXHAUSTED",
  "deadline-exceeded": "DEADLINE_EXCEEDED",
  unimplemented: "UNIMPLEMENTED",
  unavailable: "UNAVAILABLE",
  "data-loss": "DATA_LOSS",
  internal: "INTERNAL",
} as const satisfies Record<ErrorCode, StatusName>;

export function statusOf(error: unknown): StatusName {
  if (error instanceof CsiError) return error.status;
  return error instanceof StorageError ? STATUS[error.code] : "INTERNAL";
}

/** As much as fits into a header with room to spare; clients drop connections over longer ones. */
const MAX_MESSAGE = 2000;

export function textOf(error: unknown): string {
  const known = error instanceof CsiError || error instanceof StorageError;
  const text = known ? error.message : "internal error: the plugin's log has it";
  return text.length <= MAX_MESSAGE ? text : `${text.slice(0, MAX_MESSAGE)}…`;
}

export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is StorageError {
  return error instanceof StorageError && codes.includes(error.code);
}

/** What a call makes of a missing or wrong member. */
export function invalid(what: string): CsiError {
  return new CsiError("INVALID_ARGUMENT", what);
}
