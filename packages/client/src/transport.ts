/** Requests to one server, and what is done when a connection breaks under one. */
import type { Agent as HttpAgent, ClientRequest, IncomingMessage, RequestOptions } from "node:http";
import type { Agent as HttpsAgent } from "node:https";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { formatAddress, isLocal, parseAddress, StorageError } from "@libstorage/model";
import type { Address, TlsSettings } from "@libstorage/model";
import { plainAgent } from "./connection.js";
import { bodyOf, readWhole } from "./http-body.js";
import { failureOfConnection, reachOf } from "./http-failure.js";
import type { HttpReply } from "./http-failure.js";
import type { HttpRequest } from "./http-request.js";

export interface TransportOptions {
  /** `unix:///PATH`, `tcp://HOST:PORT`. */
  readonly host: string | Address;
  /** For TCP addresses. Unix sockets have no TLS. */
  readonly tls?: TlsSettings;
  /** Default true. */
  readonly keepAlive?: boolean;
  /** Until a connection stands. Default 10,000. */
  readonly connectTimeoutMs?: number;
  /** Until an answer is there. Default 90,000: a server waits a minute for a task before it says so. */
  readonly responseTimeoutMs?: number;
  /** An answer that is larger is an error. Default 256 MiB. */
  readonly maxResponseBytes?: number;
  /** How long a request whose connection broke is repeated. Default 10,000; 0 never repeats. */
  readonly repeatMs?: number;
}

export interface SendOptions {
  readonly signal: AbortSignal | undefined;
  /** Whether doing it twice is the same as doing it once. */
  readonly isRepeatable: () => Promise<boolean>;
}

export interface Transport {
  readonly address: Address;
  send(request: HttpRequest, options: SendOptions): Promise<HttpReply>;
  /** An answer of bytes. */
  download(request: HttpRequest, signal: AbortSignal | undefined): Promise<DownloadReply>;
  /** An answer that is read while it comes; without a time limit for its whole. */
  stream(request: HttpRequest, signal: AbortSignal | undefined): Promise<StreamReply>;
  /** A request whose body, or whose answer, is as long as it is: without a limit in time or bytes. */
  exchange(request: HttpRequest, signal: AbortSignal | undefined): Promise<Exchange>;
  close(): void;
}

export interface Exchange {
  /** Where the body goes. */
  readonly send: ClientRequest;
  /** @throws {StorageError} */
  readonly reply: Promise<IncomingMessage>;
}

export interface DownloadReply extends HttpReply {
  readonly bytes: Buffer;
}

export interface StreamReply {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly stream: Readable;
}

const MIB = 1024 ** 2;

type Agent = HttpAgent | HttpsAgent;

/** What every request to the server has in common. */
interface Target {
  readonly base: string;
  readonly agent: Agent;
  readonly socketPath?: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Of answers that are read whole. */
  readonly encoding: "gzip" | "identity";
}

async function targetOf(address: Address, options: TransportOptions): Promise<Target> {
  const connection = {
    keepAlive: options.keepAlive ?? true,
    connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
  };
  // On one host compressing costs more than it saves.
  const encoding = isLocal(address) ? "identity" : "gzip";
  if (address.kind === "unix")
    return {
      base: "http://localhost",
      agent: plainAgent(connection),
      socketPath: address.path,
      headers: { Host: "libstorage-server" },
      encoding,
    };
  const host = address.host === "" ? "127.0.0.1" : address.host;
  const authority = `${host.includes(":") ? `[${host}]` : host}:${address.port}`;
  if (options.tls === undefined)
    return { base: `http://${authority}`, agent: plainAgent(connection), headers: {}, encoding };
  const { tlsAgent } = await import("./tls-connection.js");
  const { serverName } = options.tls;
  return {
    base: `https://${authority}`,
    agent: tlsAgent(options.tls, host, connection),
    headers: serverName === undefined ? {} : { Host: serverName },
    encoding,
  };
}

interface Reply {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  /** Unpacked. */
  readonly body: Readable;
}

class HttpTransport implements Transport {
  readonly address: Address;
  readonly #server: string;
  readonly #options: TransportOptions;
  #target: Promise<Target> | undefined;

  constructor(options: TransportOptions) {
    this.#options = options;
    this.address = typeof options.host === "string" ? parseAddress(options.host) : options.host;
    this.#server = formatAddress(this.address);
  }

  async send(request: HttpRequest, { signal, isRepeatable }: SendOptions): Promise<HttpReply> {
    const started = Date.now();
    for (let attempt = 0, wasPerhapsSent = false; ; attempt += 1) {
      try {
        const { bytes, ...reply } = await this.#whole(request, signal);
        return { ...reply, text: bytes.toString("utf8") };
      } catch (error) {
        const reach = reachOf(error);
        wasPerhapsSent ||= reach === "perhaps";
        // A server that was never there is reported at once; one that went away may come back.
        const mayRepeat =
          signal?.aborted !== true &&
          reach !== "answered" &&
          wasPerhapsSent &&
          Date.now() - started < (this.#options.repeatMs ?? 10_000);
        if (!mayRepeat || !(await isRepeatable())) throw this.#failed(error, request, signal);
      }
      await this.#pause(attempt, request, signal);
    }
  }

  async download(request: HttpRequest, signal: AbortSignal | undefined): Promise<DownloadReply> {
    try {
      const { bytes, ...reply } = await this.#whole(request, signal);
      return { ...reply, bytes, text: reply.status >= 300 ? bytes.toString("utf8") : "" };
    } catch (error) {
      throw this.#failed(error, request, signal);
    }
  }

  async stream(request: HttpRequest, signal: AbortSignal | undefined): Promise<StreamReply> {
    try {
      const { body, ...reply } = await this.#ask(request, signal, 0, "text/event-stream");
      return { ...reply, stream: body };
    } catch (error) {
      throw this.#failed(error, request, signal);
    }
  }

  async exchange(request: HttpRequest, signal: AbortSignal | undefined): Promise<Exchange> {
    const send = await this.#begin(request, signal);
    // A peer that is gone without a word is noticed by the kernel.
    send.setSocketKeepAlive(true, 30_000);
    const reply = responseTo(send).catch((error: unknown) => {
      throw this.#failed(error, request, signal);
    });
    // Whoever only sends may be told by its own end.
    reply.catch(() => {});
    return { send, reply };
  }

  close(): void {
    void this.#target?.then(
      ({ agent }) => agent.destroy(),
      () => {},
    );
  }

  #open(): Promise<Target> {
    this.#target ??= targetOf(this.address, this.#options);
    return this.#target;
  }

  async #begin(
    request: HttpRequest,
    signal: AbortSignal | undefined,
    more: Readonly<Record<string, string>> = {},
  ): Promise<ClientRequest> {
    const { base, headers, agent, socketPath } = await this.#open();
    const options: RequestOptions = {
      method: request.method,
      agent,
      headers: { ...headers, "User-Agent": "libstorage", ...more, ...request.headers },
      ...(socketPath !== undefined && { socketPath }),
      ...(signal !== undefined && { signal }),
    };
    const { request: begin } = base.startsWith("https:")
      ? await import("node:https")
      : await import("node:http");
    return begin(`${base}${request.url}`, options);
  }

  /** @param idleMs how long nothing may come; 0: for ever */
  async #ask(
    request: HttpRequest,
    signal: AbortSignal | undefined,
    idleMs: number,
    accept = "application/json",
  ): Promise<Reply> {
    const { encoding } = await this.#open();
    const send = await this.#begin(request, signal, {
      Accept: accept,
      "Accept-Encoding": encoding,
    });
    let response: IncomingMessage | undefined;
    send.setTimeout(idleMs, () => (response ?? send).destroy(outOfTime()));
    send.end(request.body);
    response = await responseTo(send);
    const { statusCode: status = 0, headers } = response;
    return { status, headers, body: bodyOf(response) };
  }

  async #whole(
    request: HttpRequest,
    signal: AbortSignal | undefined,
  ): Promise<Omit<Reply, "body"> & { readonly bytes: Buffer }> {
    const { responseTimeoutMs = 90_000, maxResponseBytes = 256 * MIB } = this.#options;
    const { body, ...reply } = await this.#ask(request, signal, responseTimeoutMs);
    return { ...reply, bytes: await readWhole(body, maxResponseBytes) };
  }

  async #pause(attempt: number, request: HttpRequest, signal?: AbortSignal): Promise<void> {
    try {
      await sleep(Math.min(50 * 2 ** attempt, 1000), undefined, { ...(signal && { signal }) });
    } catch (error) {
      throw this.#failed(error, request, signal);
    }
  }

  #failed(error: unknown, request: HttpRequest, signal?: AbortSignal): StorageError {
    const isTls = this.#options.tls !== undefined && this.address.kind !== "unix";
    if (signal?.aborted !== true)
      return failureOfConnection(error, asked(request), this.#server, isTls);
    return new StorageError("cancelled", `waiting for ${asked(request)} was ended`, {
      server: this.#server,
    });
  }
}

/** @throws {StorageError} `invalid-argument` for an address that is none; connects with the first request */
export function openTransport(options: TransportOptions): Transport {
  return new HttpTransport(options);
}

function responseTo(send: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    send.once("response", resolve);
    send.on("error", reject);
    send.once("close", () => reject(new Error("socket hang up")));
  });
}

/** Not as a connection that broke, after which a request may be sent again. */
function outOfTime(): Error {
  return Object.assign(new Error("no answer in time"), { code: "ETIMEDOUT" });
}

/** How a request is named in errors. */
export function asked({ method, url }: HttpRequest): string {
  return `${method} ${url}`;
}
