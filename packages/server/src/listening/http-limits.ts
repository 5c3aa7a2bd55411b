/** Answers for requests that are no HTTP, too big or too slow, and the count of headers. */
import type * as http from "node:http";
import type { Duplex } from "node:stream";
import type { Logger } from "../core/log.js";

/** Node cuts longer lists without a word, and with them perhaps the token; so they are refused. */
export const MAX_HEADERS = 1_000;

/** What a client is told whose request never became one. */
const ANSWERS: Readonly<Record<string, readonly [status: string, text: string]>> = {
  HPE_HEADER_OVERFLOW: [
    "431 Request Header Fields Too Large",
    "The headers of the request are too large.",
  ],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [
    "413 Payload Too Large",
    "The chunk extensions of the request are too large.",
  ],
  ERR_HTTP_REQUEST_TIMEOUT: ["408 Request Timeout", "The request took too long to arrive."],
};

/** How long a refused client may go on sending, so that it gets to read the answer. */
const LINGER_MS = 1_000;

function answerOf(status: string, text: string): string {
  return [
    `HTTP/1.1 ${status}`,
    "Connection: close",
    "Content-Type: text/plain; charset=utf-8",
    `Content-Length: ${Buffer.byteLength(text) + 1}`,
    "",
    `${text}\n`,
  ].join("\r\n");
}

/** Connections whose present request may take longer than others: its reader watches over its time. */
const longBodies = new WeakSet<Duplex>();

export function expectLongBody(socket: Duplex): void {
  longBodies.add(socket);
}

/** Tells clients what was wrong with bytes that are no acceptable request. */
export function answerBadRequests(server: http.Server, log: Logger): void {
  const answered = new WeakSet<Duplex>();
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Duplex) => {
    // What still comes in after the answer fails as well.
    if (answered.has(socket)) return;
    if (error.code === "ERR_HTTP_REQUEST_TIMEOUT" && longBodies.has(socket)) return;
    answered.add(socket);
    if (error.code === "ECONNRESET" || !socket.writable) {
      socket.destroy();
      return;
    }
    log.debug({ code: error.code, error: error.message }, "a request could not be read");
    const [status, text] = ANSWERS[error.code ?? ""] ?? [
      "400 Bad Request",
      "The request is not HTTP as this server understands it.",
    ];
    socket.resume();
    socket.end(answerOf(status, text));
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  });
}

type Handler = (req: http.IncomingMessage, res: http.ServerResponse) => void;

/** Refuses requests with more headers than Node was told to keep. */
export function limitHeaders(handler: Handler): Handler {
  return (req, res) => {
    if (req.rawHeaders.length <= MAX_HEADERS * 2) {
      handler(req, res);
      return;
    }
    res.writeHead(431, { connection: "close", "content-type": "text/plain; charset=utf-8" });
    res.end(`The request has more than ${MAX_HEADERS} headers.\n`);
  };
}
