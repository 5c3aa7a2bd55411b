/** One line per request in Apache's common log format, and dumps, section 14 of the contract. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { isSecretName, REDACTED } from "./redact.js";
import type { AccessLog } from "./parts.js";

const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** `21/Nov/2026:04:15:13 +0000` */
function clfDate(date: Date): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${two(date.getUTCDate())}/${MONTHS[date.getUTCMonth()]}/${date.getUTCFullYear()}`;
  const time = [date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()].map(two).join(":");
  return `${day}:${time} +0000`;
}

/** Control characters could forge lines; quotes would end the field. */
function quoted(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}

/** A token in the URL must not reach the log. */
function withoutSecrets(url: string): string {
  return url.replace(/([?&]admin=)[^&]*/gi, `$1${REDACTED}`);
}

function headerLines(rawHeaders: readonly string[]): string[] {
  const lines: string[] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? "";
    const isSecret = isSecretName(name) || /^authorization$/i.test(name);
    lines.push(`    ${quoted(name)}: ${isSecret ? REDACTED : quoted(rawHeaders[at + 1] ?? "")}`);
  }
  return lines;
}

/** Keeps the headers that go out: those given to `writeHead` alone cannot be asked for afterwards. */
function captureHeaders(res: ServerResponse): () => readonly string[] {
  let sent: readonly string[] = [];
  const writeHead = res.writeHead.bind(res);
  res.writeHead = ((status: number, headers: string[]) => {
    sent = headers;
    return writeHead(status, headers);
  }) as typeof res.writeHead;
  return () => sent;
}

/** Writes the request's line once its response has gone out, or broke off. */
export function logAccess(log: AccessLog, req: IncomingMessage, res: ServerResponse): void {
  const began = new Date();
  const address = req.socket.remoteAddress ?? "-";
  const requestLine = `${req.method ?? "-"} ${quoted(withoutSecrets(req.url ?? ""))} HTTP/${req.httpVersion}`;
  const sentHeaders = captureHeaders(res);
  res.once("close", () => {
    const sent = sentHeaders();
    const bytes = sent[sent.indexOf("Content-Length") + 1];
    const size = sent.includes("Content-Length") ? bytes : "-";
    const lines = [`${address} - - [${clfDate(began)}] "${requestLine}" ${res.statusCode} ${size}`];
    if (log.requests) lines.push(`    ${requestLine}`, ...headerLines(req.rawHeaders));
    if (log.responses) lines.push(`    HTTP/1.1 ${res.statusCode}`, ...headerLines(sent));
    log.write(lines.join("\n"));
  });
}
