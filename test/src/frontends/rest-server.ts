/** A server with mock services behind the REST front-end, on a socket of its own, for one test file. */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, request } from "node:http";
import type { IncomingMessage } from "node:http";
import { connect } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DRIVERS, SILENT, loadConfig, openApp } from "@libstorage/server";
import type { App, AppOptions } from "@libstorage/server";

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly bytes: Buffer;
  readonly text: string;
  /** The body as JSON. */
  json<T = Record<string, unknown>>(): T;
}

export interface Asked {
  readonly headers?: Readonly<Record<string, string | string[]>>;
  /** Sent as JSON unless it is text or bytes. */
  readonly body?: unknown;
}

export class RestServer {
  readonly app: App;
  readonly port: number;
  readonly folder: string;
  readonly #close: () => Promise<void>;

  constructor(app: App, port: number, folder: string, close: () => Promise<void>) {
    this.app = app;
    this.port = port;
    this.folder = folder;
    this.#close = close;
  }

  ask(method: string, path: string, { headers = {}, body }: Asked = {}): Promise<Answer> {
    const content =
      body === undefined || typeof body === "string" || Buffer.isBuffer(body)
        ? body
        : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const options = { host: "127.0.0.1", port: this.port, method, path, headers };
      const sent = request(options, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => resolve(answerOf(response, Buffer.concat(chunks))));
      });
      sent.on("error", reject);
      sent.end(content);
    });
  }

  /** The response as it comes, for streams. */
  open(path: string, headers: Readonly<Record<string, string>> = {}): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      request({ host: "127.0.0.1", port: this.port, path, headers }, resolve)
        .on("error", reject)
        .end();
    });
  }

  /** A bare connection, for what no HTTP client would send. */
  socket(): Socket {
    return connect(this.port, "127.0.0.1");
  }

  close(): Promise<void> {
    return this.#close();
  }
}

function answerOf(response: IncomingMessage, bytes: Buffer): Answer {
  const text = bytes.toString("utf8");
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    bytes,
    text,
    json: <T>() => JSON.parse(text) as T,
  };
}

/** Two empty services that take no time, and one whose copies take `delayMs`. */
export function mocks(delayMs = 0): string {
  return `
libstorage:
  server:
    services:
      one: {driver: mock, mock: {seed: false}}
      two: {driver: mock, mock: {seed: false}}
      slow: {driver: mock, mock: {seed: false, delayMs: ${delayMs}}}
`;
}

/** @param home for what outlives this server; its own folder, which goes with it, when left out */
export async function startRest(
  config: string,
  options: Partial<AppOptions> = {},
  home?: string,
): Promise<RestServer> {
  const folder = await mkdtemp(join(tmpdir(), "libstorage-rest-"));
  const app = await openApp(
    loadConfig(
      options.drivers ?? DRIVERS,
      {
        text: config.replaceAll("ROOT", folder),
        env: { LIBSTORAGE_HOME: home ?? join(folder, "home") },
        isRoot: false,
      },
      options.exporters,
    ),
    { log: SILENT, ...options },
  );
  const server = createServer((req, res) => app.handler(req, res));
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  return new RestServer(app, port, folder, async () => {
    app.stop();
    server.closeAllConnections();
    server.close();
    await app.close();
    await rm(folder, { recursive: true, force: true });
  });
}
