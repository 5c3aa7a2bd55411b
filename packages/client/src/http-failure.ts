/** From what went wrong on the way to the server, or in its answer, to a StorageError. */
import { codeOfStatus, isErrorCode, StorageError } from "@libstorage/model";
import type { ErrorCode, ErrorData, Task } from "@libstorage/model";
import { TOO_LARGE } from "./http-body.js";

/** The header in which a server of this project names the exact code of an error. */
export const ERROR_CODE_HEADER = "libstorage-errorcode";

export interface HttpReply {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly text: string;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The server's error as it was thrown there: exact code, message, data. */
export function failureOfReply(reply: HttpReply, asked: string, server: string): StorageError {
  const given = reply.headers[ERROR_CODE_HEADER];
  const code: ErrorCode =
    typeof given === "string" && isErrorCode(given) ? given : codeOfStatus(reply.status);
  const body = parsed(reply.text);
  if (isMap(body) && typeof body["message"] === "string") {
    const data: ErrorData = isMap(body["error"]) ? body["error"] : {};
    return new StorageError(code, body["message"], { ...data, status: reply.status });
  }
  const line = reply.text.trim().split("\n")[0]?.slice(0, 200) ?? "";
  if (/HTTP request to an HTTPS server/i.test(line))
    return new StorageError(
      "unavailable",
      `the server at ${server} wants TLS: set libstorage.tls (see trustedCertsFile, certFile, keyFile)`,
      { server },
    );
  if (reply.status === 404)
    return new StorageError(
      "unimplemented",
      `the server at ${server} does not know ${asked}: is it a libStorage server, and new enough?`,
      { server, status: 404 },
    );
  return new StorageError(
    code,
    `the server at ${server} answered ${asked} with status ${reply.status}${line === "" ? "" : `: ${line}`}`,
    { server, status: reply.status },
  );
}

/** The error of a task that failed: a text, or its data with the text as `msg`. */
export function failureOfTask(task: Task): StorageError {
  const { error, errorCode = "" } = task;
  const { msg, ...data } = isMap(error) ? error : { msg: error };
  const given = typeof msg === "string" && msg !== "" ? msg : undefined;
  const text = given ?? (isMap(error) ? JSON.stringify(error) : "failed without a reason");
  const code = isErrorCode(errorCode) ? errorCode : codeOfTaskText(text);
  return new StorageError(code, text, { ...data, task: task.id });
}

/** A task's error has no status. Only the reference's own fixed texts are told apart. */
function codeOfTaskText(text: string): ErrorCode {
  if (text === "resource not found") return "not-found";
  return text === "missing instance ID" ? "invalid-argument" : "internal";
}

/** Codes with which Node says that a connection was never made: the request did not reach anybody. */
const NOT_CONNECTED = new Set([
  "ENOENT",
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EACCES",
  "EPERM",
  "ENOTSOCK",
  "CONNECT_TIMEOUT",
]);
/** Codes with which it says that one broke: the request may have reached the server. */
const BROKEN = new Set(["ECONNRESET", "EPIPE", "ECONNABORTED", "ERR_STREAM_PREMATURE_CLOSE"]);

/** How far a request came that got no answer. */
export type Reach = "not-sent" | "perhaps" | "answered";

export function reachOf(error: unknown): Reach {
  const code = codeOf(error);
  if (NOT_CONNECTED.has(code)) return "not-sent";
  return BROKEN.has(code) || /socket hang up|aborted/i.test(messageOf(error))
    ? "perhaps"
    : "answered";
}

export function codeOf(error: unknown): string {
  for (let at: unknown = error; isMap(at) || at instanceof Error; at = (at as Error).cause) {
    const code = (at as NodeJS.ErrnoException).code;
    if (typeof code === "string") return code;
  }
  return "";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

interface Explanation {
  readonly code: ErrorCode;
  readonly text: string;
}

function unreachable(code: string, server: string): Explanation | undefined {
  switch (code) {
    case "ENOENT":
      return {
        code: "unavailable",
        text: `no server at ${server}: the socket does not exist. Is libstorage-server running? Name another with --host or LIBSTORAGE_HOST`,
      };
    case "ECONNREFUSED":
      return {
        code: "unavailable",
        text: `no server at ${server}: nobody listens there. Is libstorage-server running?`,
      };
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return {
        code: "unavailable",
        text: `no server at ${server}: the host name cannot be resolved`,
      };
    case "EACCES":
    case "EPERM":
      return {
        code: "permission-denied",
        text: `this user may not open ${server}: use an account in the group that owns the socket, or root`,
      };
    case "CONNECT_TIMEOUT":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
      return {
        code: "unavailable",
        text: `the server at ${server} cannot be reached (${code === "CONNECT_TIMEOUT" ? "no answer to the connection attempt" : code}): check the address and the firewall`,
      };
    case "ENOTSOCK":
      return { code: "unavailable", text: `${server} is not a socket` };
    default:
      return undefined;
  }
}

function untrusted(code: string, message: string, server: string): Explanation | undefined {
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID")
    return {
      code: "unauthenticated",
      text: `the certificate of ${server} is for another name: set libstorage.tls.serverName to the name it is for (${message})`,
    };
  if (/SELF_SIGNED|UNABLE_TO_|CERT_UNTRUSTED/.test(code))
    return {
      code: "unauthenticated",
      text: `the certificate of ${server} is not from a trusted CA (${code}): set libstorage.tls.trustedCertsFile to the CA that signed it`,
    };
  if (/^CERT_(?:HAS_EXPIRED|NOT_YET_VALID)$/.test(code))
    return {
      code: "unauthenticated",
      text: `the certificate of ${server} is ${code === "CERT_HAS_EXPIRED" ? "expired" : "not valid yet"}: renew it on the server, and check both clocks`,
    };
  if (/ALERT_(?:CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA|HANDSHAKE_FAILURE)/.test(code))
    return {
      code: "unauthenticated",
      text: `the server at ${server} refused this client's certificate (${code}): set libstorage.tls.certFile and keyFile to a certificate that its CA signed`,
    };
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG/.test(code))
    return {
      code: "unavailable",
      text: `the server at ${server} does not speak TLS: set libstorage.tls.disabled, or use its TLS port`,
    };
  return undefined;
}

/**
 * Under TLS 1.3 a server looks at the client's certificate when the client is done already, and not every
 * server says why it hangs up then.
 */
const PERHAPS_TURNED_AWAY =
  ": it may have turned this client's certificate away, as missing, expired or of another CA; its log says so";

/** An error of the connection, with the server's address and the next step. */
export function failureOfConnection(
  error: unknown,
  asked: string,
  server: string,
  isTls = false,
): StorageError {
  if (error instanceof StorageError) return error;
  const code = codeOf(error);
  const message = messageOf(error);
  const known = unreachable(code, server) ?? untrusted(code, message, server);
  if (known !== undefined)
    return new StorageError(known.code, known.text, { server, cause: code }, { cause: error });
  if (code === "ETIMEDOUT")
    return new StorageError(
      "deadline-exceeded",
      `the server at ${server} did not answer ${asked} in time; it may still do it: look before you repeat it`,
      { server },
      { cause: error },
    );
  if (code === TOO_LARGE)
    return new StorageError(
      "resource-exhausted",
      `the answer of ${server} to ${asked} is larger than this client takes: use limit and after`,
      { server },
      { cause: error },
    );
  if (code.startsWith("HPE_"))
    return new StorageError(
      "unavailable",
      `what listens at ${server} does not speak HTTP (${code}): is it a libStorage server, perhaps with TLS?`,
      { server },
      { cause: error },
    );
  return new StorageError(
    "unavailable",
    `the connection to ${server} broke during ${asked} (${code === "" ? message : code})${isTls && reachOf(error) === "perhaps" ? PERHAPS_TURNED_AWAY : ""}`,
    { server, cause: code },
    { cause: error },
  );
}
