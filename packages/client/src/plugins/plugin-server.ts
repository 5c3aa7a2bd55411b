/** Where a plugin listens: a Unix socket, or TCP with TLS; bounded, and ended without dropping what runs. */
import * as http from "node:http";
import * as https from "node:https";
import { readFile } from "node:fs/promises";
import type { AddressInfo, Socket } from "node:net";
import { StorageError, formatAddress, isLocal } from "@libstorage/model";
import type { Address } from "@libstorage/model";
import { listenOnSocket } from "./socket-file.js";

/** For TCP. */
export interface ServingTls {
  readonly certFile: string;
  readonly keyFile: string;
  /** The CA whose certificate a client must show; without it, everybody gets in. */
  readonly trustedCertsFile?: string;
}

export interface PluginServer {
  /** With the port that was really taken. */
  readonly address: Address;
  /** Takes no more connections, lets running requests finish for `graceMs`, then cuts them. */
  close(graceMs: number): Promise<void>;
}

const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
const MAX_CONNECTIONS = 512;

async function tlsServer(
  { certFile, keyFile, trustedCertsFile }: ServingTls,
  handler: http.RequestListener,
): Promise<https.Server> {
  const read = (file: string): Promise<Buffer> =>
    readFile(file).catch((error: Error) => {
      throw new StorageError("failed-precondition", `cannot read the TLS file: ${error.message}`, {
        file,
      });
    });
  const [cert, key] = [await read(certFile), await read(keyFile)];
  const mutual =
    trustedCertsFile === undefined
      ? {}
      : { ca: await read(trustedCertsFile), requestCert: true, rejectUnauthorized: true };
  return https.createServer({ cert, key, ...mutual, minVersion: "TLSv1.2" }, handler);
}

async function listenOnTcp(server: http.Server, address: Address & { kind: "tcp" }): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error): void =>
      reject(
        new StorageError(
          "unavailable",
          `cannot listen on ${formatAddress(address)}: ${error.message}`,
          { address: formatAddress(address) },
        ),
      );
    server.once("error", failed);
    server.once("listening", () => {
      server.off("error", failed);
      resolve();
    });
    server.listen({ port: address.port, host: address.host === "" ? "127.0.0.1" : address.host });
  });
}

/** @throws {StorageError} when it cannot listen, or would listen to everybody */
export async function openPluginServer(
  address: Address,
  tls: ServingTls | undefined,
  handler: http.RequestListener,
): Promise<PluginServer> {
  if (address.kind === "tcp" && tls === undefined)
    throw new StorageError(
      "invalid-argument",
      `${formatAddress(address)}${isLocal(address) ? "" : ", which other hosts reach,"} needs TLS: set docker.tls.certFile, .keyFile and .trustedCertsFile, or use a Unix socket`,
      { address: formatAddress(address) },
    );
  if (address.kind === "tcp" && tls?.trustedCertsFile === undefined && !isLocal(address))
    throw new StorageError(
      "invalid-argument",
      `${formatAddress(address)} can be reached by other hosts, so its clients must show certificates: set docker.tls.trustedCertsFile`,
      { address: formatAddress(address) },
    );
  const server =
    address.kind === "tcp" && tls !== undefined
      ? await tlsServer(tls, handler)
      : http.createServer(handler);
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.maxConnections = MAX_CONNECTIONS;
  const open = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
  });
  if (address.kind === "unix") await listenOnSocket(server, address.path);
  else await listenOnTcp(server, address);
  const { port } = { port: 0, ...(server.address() as Partial<AddressInfo> | null) };
  return {
    address: address.kind === "unix" ? address : { ...address, port },
    async close(graceMs) {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const idle = setInterval(() => server.closeIdleConnections(), 50);
      const cut = setTimeout(() => open.forEach((socket) => socket.destroy()), graceMs);
      await closed;
      clearInterval(idle);
      clearTimeout(cut);
    },
  };
}
