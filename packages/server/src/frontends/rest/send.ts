/**
 * The last step of every answer. Headers go out in one piece through `writeHead`: Koa's setters cost more
 * than all the rest of a small read, and drop the body of a 205.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Encoded } from "./encode.js";
import { hasBody } from "./headers.js";

/** A body up to this length Node reads to its end by itself, and keeps the connection. */
const SMALL_BODY_BYTES = 64 * 1024;
/** What is still read of a body that was refused, so that its sender gets to see the answer. */
const LINGER_BYTES = 8 * 1024 * 1024;
const LINGER_MS = 2_000;

/** Header names and values by turns, as `writeHead` takes them. */
export type HeaderList = string[];

function isSmall({ headers }: IncomingMessage): boolean {
  const length = headers["content-length"];
  return length !== undefined && Number(length) <= SMALL_BODY_BYTES;
}

/** Sends a whole answer. A large body that was not read to its end costs the connection. */
export function sendBytes(
  req: IncomingMessage,
  res: ServerResponse,
  status: number,
  headers: HeaderList,
  body: Buffer | undefined,
): void {
  if (res.headersSent || res.destroyed) return;
  if (body !== undefined) headers.push("Content-Length", String(body.length));
  const isUnread = hasBody(req) && !req.readableEnded && !isSmall(req);
  if (isUnread) headers.push("Connection", "close");
  res.writeHead(status, headers);
  if (!isUnread) {
    res.end(req.method === "HEAD" ? undefined : body);
    return;
  }
  if (body !== undefined && req.method !== "HEAD") res.write(body);
  linger(req, res);
}

/** Closing at once would reset the connection, and the sender might lose the answer. */
function linger(req: IncomingMessage, res: ServerResponse): void {
  let left = LINGER_BYTES;
  const end = (): void => {
    clearTimeout(timer);
    res.end();
  };
  const timer = setTimeout(end, LINGER_MS);
  req.on("data", (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) end();
  });
  req.once("end", end);
  req.once("close", end);
  req.once("error", end);
  req.resume();
}

/** The one-line answers that stand outside the JSON of the API. */
export function sendText(
  req: IncomingMessage,
  res: ServerResponse,
  status: number,
  headers: HeaderList,
  text: string,
): void {
  headers.push("Content-Type", "text/plain; charset=utf-8", "X-Content-Type-Options", "nosniff");
  sendBytes(req, res, status, headers, Buffer.from(`${text}\n`));
}

function acceptsGzip(req: IncomingMessage): boolean {
  const accepted = req.headers["accept-encoding"];
  return (
    typeof accepted === "string" &&
    /(?:^|[\s,])(?:gzip|\*)(?:\s*;\s*q=(?!0(?:\.0*)?(?:\s|,|$))[\d.]+)?\s*(?:,|$)/i.test(accepted)
  );
}

/** Whether the asker has this answer already. The comparison is the weak one of RFC 9110. */
function isKnown(req: IncomingMessage, etag: string): boolean {
  const known = req.headers["if-none-match"];
  if (known === undefined) return false;
  return known.split(",").some((tag) => {
    const trimmed = tag.trim();
    return trimmed === "*" || trimmed === etag || `W/${trimmed}` === etag;
  });
}

/** A JSON answer; one to a GET has a tag, and is compressed for those who ask. */
export async function sendJson(
  req: IncomingMessage,
  res: ServerResponse,
  status: number,
  headers: HeaderList,
  encoded: Encoded,
): Promise<void> {
  headers.push("Content-Type", "application/json");
  const isTagged = req.method === "GET" && status === 200;
  if (isTagged) {
    headers.push("ETag", encoded.etag);
    if (isKnown(req, encoded.etag)) {
      sendBytes(req, res, 304, headers, undefined);
      return;
    }
  }
  if (!encoded.isCompressible) {
    sendBytes(req, res, status, headers, encoded.body);
    return;
  }
  headers.push("Vary", "Accept-Encoding");
  if (!acceptsGzip(req)) {
    sendBytes(req, res, status, headers, encoded.body);
    return;
  }
  headers.push("Content-Encoding", "gzip");
  sendBytes(req, res, status, headers, await encoded.compressed());
}
