/** Requests to one server, and what is done when a connection breaks under one. */
import type { Agent as HttpAgent, ClientRequest, IncomingMessage, RequestOptions } from "node:http";
import type { Agent as HttpsAgent } from "node:https";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import axios from "axios";
import type { AxiosInstance, AxiosRequestConfig, AxiosResponse } from "axios";
import { formatAddress, isLocal, parseAddress, StorageError } from "@libstorage/model";
import type { Address, TlsSettings } from "@libstorage/model";
import { plainAgent } from "./connection.js";
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

interface Target {
  readonly base: string;
  readonly config: AxiosRequestConfig;
  readonly agent: HttpAgent | HttpsAgent;
}

async function targetOf(address: Address, options: TransportOptions): Promise<Target> {
  const connection = {
    keepAlive: options.keepAlive ?? true,
    connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
  };
  if (address.kind === "unix") {
    const agent = plainAgent(connection);
    const config = {
      socketPath: address.path,
      httpAgent: agent,
      headers: { Host: "libstorage-server" },
    };
    return { base: "http://localhost", config, agent };
  }
  const host = address.host === "" ? "127.0.0.1" : address.host;
  const authority = `${host.includes(":") ? `[${host}]` : host}:${address.port}`;
  if (options.tls === undefined) {
    const agent = plainAgent(connection);
    return { base: `http://${authority}`, config: { httpAgent: agent }, agent };
  }
  const { tlsAgent } = await import("./tls-connection.js");
  const agent = tlsAgent(options.tls, host, connection);
  const { serverName } = options.tls;
  const config: AxiosRequestConfig = {
    httpsAgent: agent,
    ...(serverName !== undefined && { headers: { Host: serverName } }),
  };
  return { base: `https://${authority}`, config, agent };
}

/** Only bytes go in and out here; what they mean is decided above. */
function axiosFor(target: Target, address: Address, options: TransportOptions): AxiosInstance {
  const { headers, ...config } = target.config;
  return axios.create({
    ...config,
    adapter: "http",
    baseURL: target.base,
    timeout: options.responseTimeoutMs ?? 90_000,
    maxContentLength: options.maxResponseBytes ?? 256 * MIB,
    maxBodyLength: 16 * MIB,
    maxRedirects: 0,
    // Else being out of time looks like a broken connection, and would be tried again.
    transitional: { clarifyTimeoutError: true },
    proxy: false,
    validateStatus: () => true,
    transformRequest: [(data: unknown) => data],
    transformResponse: [(data: unknown) => data],
    responseType: "text",
    headers: {
      ...(headers as Record<string, string> | undefined),
      Accept: "application/json",
      "User-Agent": "libstorage",
      // On one host compressing costs more than it saves.
      "Accept-Encoding": isLocal(address) ? "identity" : "gzip",
    },
  });
}

interface Opened {
  readonly agent: Target["agent"];
  readonly http: AxiosInstance;
  readonly target: Target;
}

class HttpTransport implements Transport {
  readonly address: Address;
  readonly #server: string;
  readonly #options: TransportOptions;
  #opened: Promise<Opened> | undefined;

  constructor(options: TransportOptions) {
    this.#options = options;
    this.address = typeof options.host === "string" ? parseAddress(options.host) : options.host;
    this.#server = formatAddress(this.address);
  }

  async send(request: HttpRequest, { signal, isRepeatable }: SendOptions): Promise<HttpReply> {
    const started = Date.now();
    for (let attempt = 0, wasPerhapsSent = false; ; attempt += 1) {
      try {
        const reply = await this.#ask<string>(request, signal);
        return { status: reply.status, headers: headersOf(reply), text: reply.data ?? "" };
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
      const reply = await this.#ask<Buffer>(request, signal, { responseType: "arraybuffer" });
      const bytes = Buffer.from(reply.data);
      const text = reply.status >= 300 ? bytes.toString("utf8") : "";
      return { status: reply.status, headers: headersOf(reply), text, bytes };
    } catch (error) {
      throw this.#failed(error, request, signal);
    }
  }

  async stream(request: HttpRequest, signal: AbortSignal | undefined): Promise<StreamReply> {
    try {
      const reply = await this.#ask<Readable>(request, signal, {
        responseType: "stream",
        timeout: 0,
        maxContentLength: -1,
        headers: { ...request.headers, Accept: "text/event-stream" },
      });
      return { status: reply.status, headers: headersOf(reply), stream: reply.data };
    } catch (error) {
      throw this.#failed(error, request, signal);
    }
  }

  async exchange(request: HttpRequest, signal: AbortSignal | undefined): Promise<Exchange> {
    const { target } = await this.#open();
    const { base, config, agent } = target;
    const { request: begin } = base.startsWith("https:")
      ? await import("node:https")
      : await import("node:http");
    const { socketPath } = config;
    const options: RequestOptions = {
      method: request.method,
      agent,
      headers: {
        ...(config.headers as Record<string, string> | undefined),
        "User-Agent": "libstorage",
        ...request.headers,
      },
      ...(typeof socketPath === "string" && { socketPath }),
      ...(signal !== undefined && { signal }),
    };
    const send = begin(`${base}${request.url}`, options);
    // A peer that is gone without a word is noticed by the kernel.
    send.setSocketKeepAlive(true, 30_000);
    const reply = new Promise<IncomingMessage>((resolve, reject) => {
      send.once("response", resolve);
      send.on("error", (error) => reject(this.#failed(error, request, signal)));
      send.once("close", () => reject(this.#failed(new Error("socket hang up"), request, signal)));
    });
    // Whoever only sends may be told by its own end.
    reply.catch(() => {});
    return { send, reply };
  }

  close(): void {
    void this.#opened?.then(
      ({ agent }) => agent.destroy(),
      () => {},
    );
  }

  #open(): Promise<Opened> {
    this.#opened ??= targetOf(this.address, this.#options).then((target) => ({
      agent: target.agent,
      http: axiosFor(target, this.address, this.#options),
      target,
    }));
    return this.#opened;
  }

  async #ask<T>(
    request: HttpRequest,
    signal: AbortSignal | undefined,
    extra: AxiosRequestConfig = {},
  ): Promise<AxiosResponse<T>> {
    const { http } = await this.#open();
    return http.request<T>({
      method: request.method,
      url: request.url,
      headers: { ...request.headers },
      ...(request.body !== undefined && { data: request.body }),
      ...(signal !== undefined && { signal }),
      ...extra,
    });
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

function headersOf({ headers }: AxiosResponse): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(headers));
}

/** How a request is named in errors. */
export function asked({ method, url }: HttpRequest): string {
  return `${method} ${url}`;
}
