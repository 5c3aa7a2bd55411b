/** Bodies of answers. */
import type { IncomingMessage } from "node:http";
import { pipeline } from "node:stream";
import type { Readable } from "node:stream";
import { createGunzip } from "node:zlib";

/** The code of the error for an answer that is larger than was allowed. */
export const TOO_LARGE = "ANSWER_TOO_LARGE";

/** What was sent, unpacked. */
export function bodyOf(response: IncomingMessage): Readable {
  if (response.headers["content-encoding"] !== "gzip") return response;
  // Whoever reads gets the error of either.
  return pipeline(response, createGunzip(), () => {});
}

/** @throws when it is longer, or ends too early */
export function readWhole(body: Readable, maxBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let bytes = 0;
    body.on("data", (part: Buffer) => {
      bytes += part.length;
      parts.push(part);
      if (bytes <= maxBytes) return;
      reject(Object.assign(new Error(`more than ${maxBytes} bytes`), { code: TOO_LARGE }));
      body.destroy();
    });
    body.on("error", reject);
    body.once("end", () => resolve(Buffer.concat(parts, bytes)));
    body.once("close", () => reject(new Error("socket hang up")));
  });
}
