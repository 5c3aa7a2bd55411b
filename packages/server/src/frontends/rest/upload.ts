/** The body of a request as content: bounded in time, with its digest before or behind it. */
import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { CONTENT_HEADERS, StorageError, parseDigest } from "@libstorage/model";
import type { UploadBytes } from "../embedded/content.js";
import { expectLongBody } from "../../listening/http-limits.js";

/** How long the sender may be silent, while the server waits for it. */
const SILENCE_MS = 120_000;

const DIGEST = "content-digest";

function headerOf({ headers }: IncomingMessage, name: string): string | undefined {
  const value = headers[name.toLowerCase()];
  return typeof value === "string" ? value : undefined;
}

/** @throws {StorageError} `invalid-argument` for a body whose digest is not even announced */
function checkAnnounced(req: IncomingMessage): void {
  const encoding = headerOf(req, "content-encoding") ?? "identity";
  if (encoding !== "identity")
    throw new StorageError(
      "invalid-argument",
      `content is taken as it is, not encoded as ${encoding}`,
    );
  const isBehind = /\bcontent-digest\b/i.test(headerOf(req, "trailer") ?? "");
  const digest = headerOf(req, DIGEST);
  if (digest === undefined ? isBehind : parseDigest(digest) !== undefined) return;
  throw new StorageError(
    "invalid-argument",
    'content has to come with its SHA-256: "Content-Digest: sha-256=:BASE64:" as a header, or as a trailer that the header Trailer announces',
  );
}

function lengthOf(req: IncomingMessage): number | undefined {
  const text = headerOf(req, "content-length") ?? headerOf(req, CONTENT_HEADERS.length);
  const bytes = Number(text);
  return text !== undefined && Number.isSafeInteger(bytes) && bytes >= 0 ? bytes : undefined;
}

/** The bytes of a body. The request itself stays open for the answer. */
async function* bytesOf(req: IncomingMessage): AsyncGenerator<Buffer, void> {
  const chunks = req.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
  let count = 0;
  for (;;) {
    let timer: NodeJS.Timeout | undefined;
    const silent = new Promise<never>((_resolve, reject) => {
      const text = `nothing came for ${SILENCE_MS / 1000} seconds after ${count} bytes of the content`;
      timer = setTimeout(() => reject(new StorageError("deadline-exceeded", text)), SILENCE_MS);
    });
    try {
      const { done, value } = await Promise.race([chunks.next(), silent]);
      if (done === true) return;
      count += value.length;
      yield value;
    } catch (error) {
      if (error instanceof StorageError) throw error;
      throw new StorageError(
        "cancelled",
        `the connection broke after ${count} bytes of the content`,
        { bytes: count },
        { cause: error },
      );
    } finally {
      clearTimeout(timer);
    }
  }
}

/** @throws {StorageError} `invalid-argument` */
export function uploadOf(req: IncomingMessage): UploadBytes {
  checkAnnounced(req);
  expectLongBody(req.socket);
  const lengthBytes = lengthOf(req);
  return {
    bytes: Readable.from(bytesOf(req), { objectMode: false }),
    sha256: () => {
      const text = headerOf(req, DIGEST) ?? req.trailers[DIGEST];
      return typeof text === "string" ? parseDigest(text) : undefined;
    },
    ...(lengthBytes !== undefined && { lengthBytes }),
  };
}
