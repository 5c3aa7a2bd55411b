/** From what was thrown to what goes out: status, code and the body of section 9 of the contract. */
import { randomUUID } from "node:crypto";
import { HTTP_STATUS, StorageError, wireJson } from "@libstorage/model";
import type { ErrorCode } from "@libstorage/model";
import type { Logger } from "../../core/log.js";

export interface ErrorReply {
  readonly status: number;
  readonly code: ErrorCode;
  readonly body: Buffer;
}

/** A request that is refused for its size: the one refusal whose status its code does not tell. */
export class TooLarge extends StorageError {
  constructor(what: string, limitBytes: number) {
    super("invalid-argument", `${what} is larger than ${limitBytes} bytes`, { limitBytes });
  }
}

/** A refusal that the contract answers as one line of text: a bad `Libstorage-Tx`, a bad path. */
export class TextError extends StorageError {}

function sortedData(data: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const key of Object.keys(data).toSorted()) result[key] = nested(data[key]);
  return result;
}

/** An error that was kept as data: its own data, and its text as `msg`. */
function isStored(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && "msg" in value;
}

/** An error inside an error's data: its text, or its data with the text as `msg`. */
function nested(value: unknown): unknown {
  if (!(value instanceof Error)) return isStored(value) ? sortedData(value) : value;
  if (!(value instanceof StorageError)) return "internal error";
  if (Object.keys(value.data).length === 0) return value.message;
  return sortedData({ ...value.data, msg: value.message });
}

/** The `error` member: the data, or the message where there is none. */
function detail(error: StorageError): unknown {
  return Object.keys(error.data).length === 0 ? error.message : sortedData(error.data);
}

/** An error that is not ours says nothing to a stranger; the log has it under the number it names. */
function hidden(error: unknown, log: Logger): StorageError {
  const requestID = randomUUID();
  log.error({ requestID, error }, "request failed");
  return new StorageError(
    "internal",
    `internal error; the server's log has the cause under request ${requestID}`,
    { requestID },
  );
}

export function errorReply(thrown: unknown, log: Logger): ErrorReply {
  const error = thrown instanceof StorageError ? thrown : hidden(thrown, log);
  if (error.code === "internal" && error === thrown) log.error({ error }, "request failed");
  const status = error instanceof TooLarge ? 413 : HTTP_STATUS[error.code];
  const body = wireJson({ message: error.message, status, error: detail(error) });
  return { status, code: error.code, body: Buffer.from(body) };
}
