import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, get } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { it } from "node:test";
import { gzipSync } from "node:zlib";
import { bodyOf, readWhole, TOO_LARGE } from "./http-body.js";

/** Reads one answer as the client does. */
async function read(
  answer: (res: ServerResponse) => void,
  maxBytes: number,
): Promise<Buffer | string> {
  const server = createServer((_req, res) => answer(res)).listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const req = get({ port: (server.address() as AddressInfo).port, agent: false });
    const [response] = (await once(req, "response")) as [IncomingMessage];
    return await readWhole(bodyOf(response), maxBytes).catch(
      ({ code, message }: NodeJS.ErrnoException) => code ?? message,
    );
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const LONG = "x".repeat(300_000);

it("reads an answer whole, and unpacks it", async () => {
  assert.equal(String(await read((res) => res.end(LONG), 1e6)), LONG);
  assert.equal(String(await read((res) => res.end(), 1e6)), "");
  const packed = (res: ServerResponse): unknown =>
    res.setHeader("Content-Encoding", "gzip").end(gzipSync(LONG));
  assert.equal(String(await read(packed, 1e6)), LONG);
});

it("takes no more than it is allowed, packed or not", async () => {
  assert.equal(await read((res) => res.end(LONG), 299_999), TOO_LARGE);
  const packed = (res: ServerResponse): unknown =>
    res.setHeader("Content-Encoding", "gzip").end(gzipSync(LONG));
  assert.equal(await read(packed, 299_999), TOO_LARGE);
});

it("tells an answer that ends too early from a whole one", async () => {
  const cut = (res: ServerResponse): unknown =>
    res.setHeader("Content-Length", 10).write("half", () => res.destroy());
  assert.equal(await read(cut, 1e6), "ECONNRESET");
  const half = gzipSync(LONG).subarray(0, 100);
  const packed = (res: ServerResponse): unknown =>
    res.setHeader("Content-Encoding", "gzip").end(half);
  assert.equal(await read(packed, 1e6), "Z_BUF_ERROR");
});
