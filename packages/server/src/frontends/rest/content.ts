/** The routes whose bodies are streams. */
import { Writable } from "node:stream";
import type { ServerResponse } from "node:http";
import { CONTENT_HEADERS, CONTENT_TYPES, StorageError, formatDigest } from "@libstorage/model";
import type {
  CallContext,
  ContentAbout,
  ContentOperation,
  ContentSummary,
  VolumeExtent,
} from "@libstorage/model";
import type { ChangeStream } from "../../core/contents.js";
import type { ContentDoor } from "../../core/driver.js";
import type { ContentCalls } from "../embedded/content.js";
import type { Caller } from "./auth.js";
import { encode, mapDepthOf } from "./encode.js";
import { headerLines, idempotencyKeyOf, peerOf, transactionOf } from "./headers.js";
import type { Exchange } from "./parts.js";
import type { Entry } from "./routing.js";
import { sendJson } from "./send.js";
import { drained } from "./draining.js";
import { uploadOf } from "./upload.js";

/** A reader who hands on what it gets may have to wait for another one. */
const READER_MS = 120_000;

type Params = Readonly<Record<string, unknown>>;
type LooseContent = (
  params: Params,
  open: ContentDoor,
  context: CallContext,
) => Promise<ContentSummary>;
type LooseChanges = (params: Params, signal: AbortSignal) => ChangeStream;

async function contextOf({ req, parts, path }: Exchange): Promise<CallContext> {
  const { auth, log, service: calls } = parts;
  const lines = headerLines(req);
  const tx = transactionOf(lines);
  const isRead = req.method === "GET";
  let caller: Caller = { authorization: undefined };
  if (!auth.isOpen) caller = await auth.check(req.headers.authorization, log);
  const { service = "" } = path;
  await calls.serviceInspect({ service }, undefined, {});
  if (!auth.isOpen) caller = await auth.checkService(caller, service, log);
  const idempotencyKey = isRead ? undefined : idempotencyKeyOf(lines);
  return {
    who: caller.subject ?? peerOf(req),
    via: "rest",
    ...(tx !== undefined && { tx }),
    ...(idempotencyKey !== undefined && { idempotencyKey }),
    ...(!isRead && req.headers["if-none-match"]?.trim() === "*" && { onlyIfNew: true }),
  };
}

function aboutHeaders({ format, lengthBytes, sizeBytes, contentID, parentID }: ContentAbout) {
  const known: readonly (readonly [string, string | number | undefined])[] = [
    [CONTENT_HEADERS.length, lengthBytes],
    [CONTENT_HEADERS.size, sizeBytes],
    [CONTENT_HEADERS.id, contentID],
    [CONTENT_HEADERS.parent, parentID],
  ];
  return [
    "Content-Type",
    CONTENT_TYPES[format],
    ...known.flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)])),
  ];
}

/** Writes to a response as fast as its reader takes it. The response is not ended: a trailer follows. */
function writerTo(res: ServerResponse): Writable {
  const writer = new Writable({
    write(chunk: Buffer, _encoding, done) {
      if (res.destroyed) done(new StorageError("cancelled", "the reader has gone"));
      else if (res.write(chunk)) done();
      else void drained(res, READER_MS).then(() => done());
    },
  });
  const gone = (): void => {
    if (!writer.writableFinished)
      writer.destroy(new StorageError("cancelled", "the reader has gone"));
  };
  res.once("close", gone);
  // The one who pipes into it is told, too.
  writer.on("error", () => {});
  return writer;
}

async function sendContent(exchange: Exchange, read: LooseContent, params: Params) {
  const { res, headers } = exchange;
  const context = await contextOf(exchange);
  const open: ContentDoor = (about) => {
    headers.push(...aboutHeaders(about), "Trailer", "Content-Digest", "Cache-Control", "no-store");
    res.writeHead(200, headers);
    return writerTo(res);
  };
  const { sha256 } = await read(params, open, context);
  res.addTrailers({ "Content-Digest": formatDigest(sha256) });
  res.end();
}

const BATCH_BYTES = 16 * 1024;

async function* inBatches(
  extents: AsyncIterable<VolumeExtent>,
  from: number,
): AsyncGenerator<string, void> {
  let text = "";
  for await (const { offset, length, kind } of extents) {
    if (offset + length <= from) continue;
    text += `${JSON.stringify({ offset, length, kind })}\n`;
    if (text.length < BATCH_BYTES) continue;
    yield text;
    text = "";
  }
  yield text;
}

async function sendChanges(exchange: Exchange, read: LooseChanges, params: Params): Promise<void> {
  const { res, headers } = exchange;
  await contextOf(exchange);
  const gone = new AbortController();
  res.once("close", () => gone.abort(new StorageError("cancelled", "the reader has gone")));
  const { sizeBytes, extents } = read(params, gone.signal);
  const from = typeof params["from"] === "number" ? params["from"] : 0;
  // What fails before the first batch is an error of the whole request.
  for await (const batch of inBatches(extents, from)) {
    if (!res.headersSent) {
      const size = [CONTENT_HEADERS.size, String(sizeBytes)];
      const type = ["Content-Type", "application/x-ndjson", "Cache-Control", "no-store"];
      res.writeHead(200, [...headers, ...type, ...size]);
    }
    if (res.destroyed) return;
    if (batch !== "" && !res.write(batch)) await drained(res, READER_MS);
  }
  res.end();
}

async function takeUpload(
  exchange: Exchange,
  { route }: Entry,
  calls: ContentCalls,
  params: Params,
) {
  const { req, res, headers } = exchange;
  const context = await contextOf(exchange);
  const own = params as Parameters<ContentCalls["volumeUpload"]>[0];
  const volume = await calls.volumeUpload(own, uploadOf(req), context);
  await sendJson(req, res, route.status, headers, encode(volume, mapDepthOf(route)));
}

export async function serveContent(
  exchange: Exchange,
  entry: Entry,
  operation: ContentOperation,
): Promise<void> {
  const { query, path, parts } = exchange;
  const { content: calls } = parts;
  const params = { ...query.paramsOf(entry.route), ...path };
  if (operation === "volumeUpload") await takeUpload(exchange, entry, calls, params);
  else if (operation === "volumeChanges" || operation === "snapshotChanges")
    await sendChanges(exchange, calls[operation] as LooseChanges, params);
  else await sendContent(exchange, calls[operation] as LooseContent, params);
}
