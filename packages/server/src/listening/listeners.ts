/**
 * Opens the endpoints: Unix sockets, TCP, TLS; bounds what a stranger may cost; stops without dropping
 * what runs.
 */
import { randomUUID } from "node:crypto";
import type { EventEmitter } from "node:events";
import * as http from "node:http";
import * as https from "node:https";
import { mkdir } from "node:fs/promises";
import type { AddressInfo, Socket } from "node:net";
import { dirname, join } from "node:path";
import type { TLSSocket } from "node:tls";
import { StorageError, formatAddress } from "@libstorage/model";
import type { Address } from "@libstorage/model";
import type { EndpointConfig, HttpConfig } from "../config/server-config.js";
import type { Logger } from "../core/log.js";
import { MAX_HEADERS, answerBadRequests, limitHeaders } from "./http-limits.js";
import { claimSocketPath } from "./socket-path.js";
import { refusal } from "../tls/gate.js";
import type { TlsWatcher } from "../tls/watcher.js";

export type Handler = (req: http.IncomingMessage, res: http.ServerResponse) => void;

export interface ListenersOptions {
  readonly endpoints: readonly EndpointConfig[];
  readonly http: HttpConfig;
  readonly handler: Handler;
  readonly log: Logger;
  /** For sockets without a path of their own. */
  readonly runFolder: string;
  /** Needed when an endpoint speaks TLS. */
  readonly tls?: TlsWatcher;
}

/** One open endpoint. */
export interface OpenEndpoint {
  readonly name: string;
  /** With the port that was really taken. */
  readonly address: Address;
  readonly isTls: boolean;
}

export interface Listeners {
  readonly endpoints: readonly OpenEndpoint[];
  /** New limits for new connections and requests. */
  reload(http: HttpConfig): void;
  /** Takes no more connections, lets running requests finish for `graceMs`, then cuts them. */
  close(graceMs: number): Promise<void>;
}

/** How often Node looks for connections that are too slow. */
const SLOWNESS_CHECK_MS = 1_000;
/** Hosts with many devices send long headers: one line per service. */
const MAX_HEADER_BYTES = 64 * 1024;

interface Listener {
  readonly endpoint: OpenEndpoint;
  readonly server: http.Server;
  readonly connections: Connections;
}

/** Connections in all states: one that has not sent a request yet is unknown to Node's HTTP server. */
interface Connections {
  readonly open: ReadonlySet<Socket>;
  /** Those with a request that runs, and how many. */
  readonly busy: ReadonlyMap<Socket, number>;
}

/** @throws {StorageError} when one cannot be opened; the others are closed again */
export async function openListeners(options: ListenersOptions): Promise<Listeners> {
  const open: Listener[] = [];
  try {
    for (const endpoint of options.endpoints) open.push(await openListener(endpoint, options));
  } catch (error) {
    await Promise.all(open.map((listener) => closeListener(listener, 0)));
    throw error;
  }
  return {
    endpoints: open.map(({ endpoint }) => endpoint),
    reload: (limits) => {
      for (const { server } of open) applyLimits(server, limits);
    },
    close: async (graceMs) => {
      await Promise.all(open.map((listener) => closeListener(listener, graceMs)));
    },
  };
}

function applyLimits(server: http.Server, limits: HttpConfig): void {
  server.maxConnections = limits.maxConnections;
  server.requestTimeout = limits.requestTimeoutMs;
  server.headersTimeout = Math.min(limits.headersTimeoutMs, limits.requestTimeoutMs);
  server.keepAliveTimeout = limits.keepAliveTimeoutMs;
}

async function openListener(
  endpoint: EndpointConfig,
  options: ListenersOptions,
): Promise<Listener> {
  const log = options.log.child({ endpoint: endpoint.name });
  const { handler } = options;
  const settings = {
    maxHeaderSize: MAX_HEADER_BYTES,
    connectionsCheckingInterval: SLOWNESS_CHECK_MS,
    keepAlive: true,
    noDelay: true,
  };
  const server = endpoint.isTls
    ? openTls(options, settings, log)
    : http.createServer(settings, limitHeaders(handler));
  applyLimits(server, options.http);
  server.maxHeadersCount = MAX_HEADERS + 1;
  // A client that has said all may close its half of the connection and still wants its answer.
  Object.assign(server, { httpAllowHalfOpen: true });
  answerBadRequests(server, log);
  warnOfDrops(server, options.http.maxConnections, log);
  const connections = trackConnections(server);
  const address = await listen(server, endpoint, options.runFolder);
  server.on("error", (error) => log.error({ error: error.message }, "endpoint failed"));
  return { endpoint: { name: endpoint.name, address, isTls: endpoint.isTls }, server, connections };
}

function trackConnections(server: http.Server): Connections {
  const open = new Set<Socket>();
  const busy = new Map<Socket, number>();
  server.prependListener("connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  server.prependListener("request", (req: http.IncomingMessage, res: http.ServerResponse) => {
    const socket = underlying(req.socket);
    busy.set(socket, (busy.get(socket) ?? 0) + 1);
    res.once("close", () => {
      const left = (busy.get(socket) ?? 1) - 1;
      if (left === 0) busy.delete(socket);
      else busy.set(socket, left);
    });
  });
  return { open, busy };
}

/** The connection below a TLS socket, which Node keeps under a name that its types do not know. */
function underlying(socket: Socket): Socket {
  return (socket as { _parent?: Socket | null })._parent ?? socket;
}

const DROP_WARNING_MS = 10_000;

function warnOfDrops(server: http.Server, limit: number, log: Logger): void {
  let dropped = 0;
  let last = 0;
  server.on("drop", () => {
    dropped += 1;
    if (Date.now() - last < DROP_WARNING_MS) return;
    log.warn({ dropped, limit }, "connections were refused: there are too many");
    last = Date.now();
    dropped = 0;
  });
}

type SocketListener = (socket: Socket) => void;

/** Puts something between an event and the one listener that Node gave it. */
function intercept(
  server: EventEmitter,
  event: string,
  decide: (socket: Socket, pass: () => void) => void,
): void {
  const listeners = server.listeners(event) as SocketListener[];
  server.removeAllListeners(event);
  server.on(event, (socket: Socket) => {
    decide(socket, () => {
      for (const listener of listeners) listener.call(server, socket);
    });
  });
}

function openTls(
  { tls, handler, http: limits }: ListenersOptions,
  settings: http.ServerOptions,
  log: Logger,
): https.Server {
  if (tls === undefined) throw new Error("an endpoint with TLS needs its certificates");
  const server = https.createServer(
    {
      ...settings,
      ...tls.material.context,
      ...({ allowHalfOpen: true } as object),
      requestCert: true,
      // Decided by the gate, which can say why.
      rejectUnauthorized: false,
      handshakeTimeout: limits.headersTimeoutMs,
    },
    limitHeaders(handler),
  );
  tls.onChange(({ context }) => server.setSecureContext(context));
  intercept(server, "connection", (socket, pass) =>
    expectHandshake(socket, limits.headersTimeoutMs, pass),
  );
  intercept(server, "secureConnection", (socket, pass) => {
    const reason = refusal(socket as TLSSocket, tls.tls, tls.material);
    if (reason === undefined) {
      pass();
      return;
    }
    log.warn({ client: socket.remoteAddress }, `a client was turned away: ${reason}`);
    socket.destroy();
  });
  server.on("tlsClientError", (error, socket) => {
    log.debug({ client: socket.remoteAddress, error: error.message }, "TLS handshake failed");
    socket.destroy();
  });
  return server;
}

const TLS_HANDSHAKE = 0x16;

/** Section 13 of the contract. */
const NOT_TLS = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/** Looks at the first byte: a client that speaks plain HTTP is told so in its own language. */
function expectHandshake(socket: Socket, timeoutMs: number, pass: () => void): void {
  const tooSlow = setTimeout(() => socket.destroy(), timeoutMs);
  const forget = (): void => clearTimeout(tooSlow);
  socket.once("close", forget);
  socket.on("error", () => socket.destroy());
  const look = (): void => {
    const first = socket.read(1) as Buffer | null;
    // The client closed before it said anything.
    if (first === null) {
      socket.destroy();
      return;
    }
    forget();
    socket.removeListener("close", forget);
    if (first[0] === TLS_HANDSHAKE) {
      socket.unshift(first);
      pass();
      return;
    }
    socket.resume();
    socket.end(NOT_TLS);
    setTimeout(() => socket.destroy(), 1_000).unref();
  };
  socket.once("readable", look);
}

async function listen(
  server: http.Server,
  endpoint: EndpointConfig,
  runFolder: string,
): Promise<Address> {
  const { address } = endpoint;
  if (address.kind === "tcp") {
    const host = address.host === "" ? {} : { host: address.host };
    await started(server, endpoint.name, formatAddress(address), () =>
      server.listen({ port: address.port, ...host }),
    );
    const { port } = server.address() as AddressInfo;
    return { ...address, port };
  }
  const path =
    address.kind === "unix" ? address.path : join(runFolder, `${randomUUID().slice(0, 8)}.sock`);
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  await claimSocketPath(path, endpoint.name);
  await started(server, endpoint.name, path, () => {
    // The file is made within `listen`, with the right permissions from its first moment.
    const before = process.umask(0o777 & ~endpoint.socketMode);
    try {
      server.listen(path);
    } finally {
      process.umask(before);
    }
  });
  return { kind: "unix", path };
}

function started(
  server: http.Server,
  name: string,
  address: string,
  listenNow: () => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      reject(
        new StorageError("unavailable", `endpoint ${name}: ${reasonOf(error, address)}`, {
          endpoint: name,
          address,
        }),
      );
    };
    server.once("error", failed);
    server.once("listening", () => {
      server.removeListener("error", failed);
      resolve();
    });
    listenNow();
  });
}

function reasonOf(error: NodeJS.ErrnoException, address: string): string {
  switch (error.code ?? "") {
    case "EADDRINUSE":
      return `${address} is in use by another program: stop it, or choose another address`;
    case "EACCES":
      return `this user may not listen on ${address}: ports below 1024 and others' folders need more rights`;
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return `this host does not have the address ${address}`;
    default:
      return `cannot listen on ${address}: ${error.message}`;
  }
}

async function closeListener(
  { server, connections: { open, busy } }: Listener,
  graceMs: number,
): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  const cutIdle = (): void => {
    for (const socket of open) if (!busy.has(socket)) socket.destroy();
  };
  cutIdle();
  const idle = setInterval(cutIdle, 50);
  const cut = setTimeout(() => {
    for (const socket of open) socket.destroy();
  }, graceMs);
  await closed;
  clearInterval(idle);
  clearTimeout(cut);
}
