/** What went wrong, as a word. The words are gRPC's status names, so that CSI maps one to one. */
export type ErrorCode =
  | "invalid-argument"
  | "unauthenticated"
  | "permission-denied"
  | "not-found"
  | "already-exists"
  | "failed-precondition"
  | "aborted"
  | "cancelled"
  | "resource-exhausted"
  | "deadline-exceeded"
  | "unimplemented"
  | "unavailable"
  | "data-loss"
  | "internal";

/** Code to HTTP status: the only place where the two meet. */
export const HTTP_STATUS = {
  "invalid-argument": 400,
  unauthenticated: 401,
  "permission-denied": 403,
  "not-found": 404,
  "already-exists": 409,
  "failed-precondition": 412,
  aborted: 409,
  cancelled: 499,
  "resource-exhausted": 507,
  "deadline-exceeded": 504,
  unimplemented: 501,
  unavailable: 503,
  "data-loss": 500,
  internal: 500,
} as const satisfies Record<ErrorCode, number>;

/** HTTP status to code, for answers that carry no code of their own (other servers of the API). */
export function codeOfStatus(status: number): ErrorCode {
  switch (status) {
    case 400:
    case 413:
    case 431:
      return "invalid-argument";
    case 401:
      return "unauthenticated";
    case 403:
      return "permission-denied";
    case 404:
      return "not-found";
    case 408:
    case 504:
      return "deadline-exceeded";
    case 409:
      return "aborted";
    case 412:
      return "failed-precondition";
    case 499:
      return "cancelled";
    case 501:
      return "unimplemented";
    case 503:
      return "unavailable";
    case 507:
      return "resource-exhausted";
    default:
      return "internal";
  }
}

export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(HTTP_STATUS, text);
}

/** The plain data that goes with an error: ids, command, exit code. Never a secret. */
export type ErrorData = Readonly<Record<string, unknown>>;

/**
 * The one error class of both ends. The message says what failed, on which object, what holds it, and
 * what the reader can do next; act on `code` and `data`, never on the text.
 */
export class StorageError extends Error {
  override readonly name = "StorageError";
  readonly code: ErrorCode;
  readonly data: ErrorData;

  constructor(code: ErrorCode, message: string, data: ErrorData = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.data = data;
  }
}

/** A `not-found` in the reference's data shape (`resourceID`). */
export function notFound(what: string, id: string, data: ErrorData = {}): StorageError {
  return new StorageError("not-found", `${what} ${id} not found`, { ...data, resourceID: id });
}
