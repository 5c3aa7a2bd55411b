/** Content of volumes as streams: requests whose bodies are bytes, with their digest behind them. */
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { Readable, Transform } from "node:stream";
import type { TransformCallback } from "node:stream";
import { pipeline } from "node:stream/promises";
import * as v from "valibot";
import {
  CONTENT_HEADERS,
  CONTENT_TYPES,
  ROUTES,
  StorageError,
  VolumeExtent,
  Volume,
  formatDigest,
  parseDigest,
} from "@libstorage/model";
import type {
  CallContext,
  ContentAbout,
  ContentFormat,
  ContentOperation,
  Params,
} from "@libstorage/model";
import { failureOfReply } from "./http-failure.js";
import type { HttpRequest } from "./http-request.js";
import { asked } from "./transport.js";
import type { Transport } from "./transport.js";

/** Content on its way from a server. */
export interface ContentStream {
  readonly about: ContentAbout;
  /** Fails at its end when it is not what the server has read: nothing of it may be used then. */
  readonly bytes: Readable;
  /** In hex, once the bytes have ended. */
  readonly sha256: () => string;
}

/** Content for a server. */
export interface ContentToSend {
  /** Destroyed when it cannot be sent. */
  readonly bytes: Readable;
  /** For its progress, and for the server to say early that it has not so much room. */
  readonly lengthBytes?: number;
  /** Told how many bytes have been sent. */
  readonly onBytes?: (bytes: number) => void;
}

export interface ChangesReply {
  readonly sizeBytes: number;
  readonly extents: AsyncGenerator<VolumeExtent, void>;
}

/** @throws {StorageError} */
export interface ContentClient {
  volumeContent(params: Params<"volumeContent">, context: CallContext): Promise<ContentStream>;
  snapshotContent(params: Params<"snapshotContent">, context: CallContext): Promise<ContentStream>;
  /** Creates a volume. It is there when this resolves, whole and with the digest of what was sent. */
  volumeUpload(
    params: Params<"volumeUpload">,
    content: ContentToSend,
    context: CallContext,
  ): Promise<Volume>;
  volumeChanges(params: Params<"volumeChanges">, context: CallContext): Promise<ChangesReply>;
  snapshotChanges(params: Params<"snapshotChanges">, context: CallContext): Promise<ChangesReply>;
}

/** Counts and hashes what passes. */
class Hashed extends Transform {
  readonly #hash = createHash("sha256");
  readonly #onBytes: (bytes: number) => void;
  readonly #onEnd: (sha256: string) => void;
  #bytes = 0;
  sha256 = "";

  /** @param onEnd called with the digest before the reader is told of the end. @throws to fail instead */
  constructor(onBytes: (bytes: number) => void, onEnd: (sha256: string) => void) {
    super({ highWaterMark: 256 * 1024 });
    this.#onBytes = onBytes;
    this.#onEnd = onEnd;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#bytes += chunk.length;
    this.#hash.update(chunk);
    this.#onBytes(this.#bytes);
    done(null, chunk);
  }

  override _flush(done: TransformCallback): void {
    this.sha256 = this.#hash.digest("hex");
    try {
      this.#onEnd(this.sha256);
      done();
    } catch (error) {
      done(error as Error);
    }
  }
}

function headerOf({ headers }: IncomingMessage, name: string): string | undefined {
  const value = headers[name.toLowerCase()];
  return typeof value === "string" && value !== "" ? value : undefined;
}

function countOf(reply: IncomingMessage, name: string): number | undefined {
  const text = headerOf(reply, name);
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function aboutOf(reply: IncomingMessage): ContentAbout | undefined {
  const type = headerOf(reply, "content-type");
  const format = (Object.keys(CONTENT_TYPES) as ContentFormat[]).find(
    (one) => CONTENT_TYPES[one] === type,
  );
  if (format === undefined) return undefined;
  const lengthBytes = countOf(reply, CONTENT_HEADERS.length);
  const sizeBytes = countOf(reply, CONTENT_HEADERS.size);
  const contentID = headerOf(reply, CONTENT_HEADERS.id);
  const parentID = headerOf(reply, CONTENT_HEADERS.parent);
  return {
    format,
    ...(lengthBytes !== undefined && { lengthBytes }),
    ...(sizeBytes !== undefined && { sizeBytes }),
    ...(contentID !== undefined && { contentID }),
    ...(parentID !== undefined && { parentID }),
  };
}

/** An answer that is no content is short. */
const MAX_TEXT_BYTES = 1024 * 1024;

async function textOf(reply: IncomingMessage): Promise<string> {
  let text = "";
  reply.setEncoding("utf8");
  for await (const chunk of reply) {
    text += String(chunk);
    if (text.length > MAX_TEXT_BYTES) break;
  }
  return text;
}

/** What the client gives its content calls. */
export interface ContentParts {
  readonly transport: Transport;
  readonly server: string;
  request(operation: ContentOperation, params: object, context: CallContext): HttpRequest;
}

export function openContentClient(parts: ContentParts): ContentClient {
  const read =
    (operation: "volumeContent" | "snapshotContent") => (params: object, context: CallContext) =>
      readContent(parts, operation, params, context);
  const changes =
    (operation: "volumeChanges" | "snapshotChanges") => (params: object, context: CallContext) =>
      readChanges(parts, operation, params, context);
  return {
    volumeContent: read("volumeContent"),
    snapshotContent: read("snapshotContent"),
    volumeUpload: (params, content, context) => upload(parts, params, content, context),
    volumeChanges: changes("volumeChanges"),
    snapshotChanges: changes("snapshotChanges"),
  };
}

/** @returns an answer with the status of success */
async function answerTo(
  { transport, server }: ContentParts,
  request: HttpRequest,
  context: CallContext,
): Promise<IncomingMessage> {
  const { reply, send } = await transport.exchange(request, context.signal);
  send.end();
  const answer = await reply;
  if (answer.statusCode === 200) return answer;
  throw await refusal(answer, request, server);
}

async function refusal(
  answer: IncomingMessage,
  request: HttpRequest,
  server: string,
): Promise<StorageError> {
  const { statusCode: status = 0, headers } = answer;
  const text = await textOf(answer).catch(() => "");
  return failureOfReply({ status, headers, text }, asked(request), server);
}

async function readContent(
  parts: ContentParts,
  operation: "volumeContent" | "snapshotContent",
  params: object,
  context: CallContext,
): Promise<ContentStream> {
  const request = parts.request(operation, params, context);
  const answer = await answerTo(parts, request, context);
  const about = aboutOf(answer);
  if (about === undefined) {
    answer.destroy();
    throw new StorageError(
      "internal",
      `the server at ${parts.server} does not say what the content is`,
    );
  }
  const hashed: Hashed = new Hashed(
    () => {},
    (sha256) => checkWhole(answer, sha256, parts.server),
  );
  pipeline(answer, hashed).catch((error: unknown) => {
    if (!(hashed.errored instanceof StorageError)) hashed.destroy(brokenOff(error, parts.server));
  });
  return { about, bytes: orBroken(hashed, parts.server), sha256: () => hashed.sha256 };
}

function brokenOff(error: unknown, server: string): StorageError {
  if (error instanceof StorageError) return error;
  return new StorageError(
    "unavailable",
    `the connection to ${server} broke before the content had ended; nothing of it can be used`,
    { server },
    { cause: error },
  );
}

/** What Node says of a connection that broke, in our words. */
function orBroken(bytes: Readable, server: string): Readable {
  return Readable.from(
    (async function* () {
      try {
        yield* bytes;
      } catch (error) {
        throw brokenOff(error, server);
      }
    })(),
    { objectMode: false, highWaterMark: 256 * 1024 },
  );
}

function checkWhole(answer: IncomingMessage, sha256: string, server: string): void {
  const stated = answer.trailers["content-digest"];
  const wanted = typeof stated === "string" ? parseDigest(stated) : undefined;
  if (answer.complete && wanted === sha256) return;
  throw new StorageError(
    "data-loss",
    wanted === undefined
      ? `the content from ${server} came without its SHA-256, so that nobody knows whether it is whole`
      : `the content from ${server} has the SHA-256 ${sha256}, and should have ${wanted}`,
    { server, sha256 },
  );
}

async function upload(
  parts: ContentParts,
  params: Params<"volumeUpload">,
  { bytes, lengthBytes, onBytes = () => {} }: ContentToSend,
  context: CallContext,
): Promise<Volume> {
  const plain = parts.request("volumeUpload", params, context);
  const headers = {
    ...plain.headers,
    "Content-Type": typeOf(params.format),
    Trailer: "Content-Digest",
    "Transfer-Encoding": "chunked",
    ...(lengthBytes !== undefined && { [CONTENT_HEADERS.length]: String(lengthBytes) }),
  };
  const request = { ...plain, headers };
  const { reply, send } = await parts.transport.exchange(request, context.signal);
  const hashed = new Hashed(onBytes, (sha256) =>
    send.addTrailers({ "Content-Digest": formatDigest(sha256) }),
  );
  const sending = pipeline(bytes, hashed, send);
  // A server may refuse before it has all: its answer tells more than the connection that it closes.
  const sent = sending.then(
    () => undefined,
    (error: unknown) => (bytes.errored == null || bytes.errored === error ? error : bytes.errored),
  );
  try {
    const answer = await reply.catch(async (error: unknown) => {
      const cause = await sent;
      throw cause instanceof StorageError ? cause : error;
    });
    if (answer.statusCode !== ROUTES.volumeUpload.status)
      throw await refusal(answer, request, parts.server);
    return v.parse(Volume, JSON.parse(await textOf(answer)));
  } finally {
    bytes.destroy();
    send.destroy();
    await sent;
  }
}

function typeOf(format: string | undefined): string {
  const isKnown = format !== undefined && Object.hasOwn(CONTENT_TYPES, format);
  return isKnown ? CONTENT_TYPES[format as ContentFormat] : "application/octet-stream";
}

async function readChanges(
  parts: ContentParts,
  operation: "volumeChanges" | "snapshotChanges",
  params: object,
  context: CallContext,
): Promise<ChangesReply> {
  const request = parts.request(operation, params, context);
  const answer = await answerTo(parts, request, context);
  return {
    sizeBytes: countOf(answer, CONTENT_HEADERS.size) ?? 0,
    extents: extentsOf(answer, parts.server),
  };
}

async function* extentsOf(
  answer: IncomingMessage,
  server: string,
): AsyncGenerator<VolumeExtent, void> {
  let rest = "";
  try {
    answer.setEncoding("utf8");
    for await (const chunk of answer) {
      const lines = (rest + String(chunk)).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield v.parse(VolumeExtent, JSON.parse(line));
    }
  } catch (error) {
    throw brokenOff(error, server);
  } finally {
    answer.destroy();
  }
}
