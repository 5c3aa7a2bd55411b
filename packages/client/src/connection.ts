/** Connections to one server: Unix socket, TCP or TLS; kept alive, bounded in time, checked before use. */
import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { Agent as HttpAgent } from "node:http";
import type { AgentOptions as HttpAgentOptions } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import * as net from "node:net";
import * as tls from "node:tls";
import type { Duplex } from "node:stream";
import { StorageError } from "@libstorage/model";
import type { TlsSettings } from "@libstorage/model";
import { checkKnownHost } from "./known-hosts.js";

/** As Node's agents call back. */
type Done = (error: Error | null, stream: Duplex) => void;

/** Node gives an agent the target of a request among much else. */
type Target = net.NetConnectOpts & { readonly host?: string; readonly servername?: string };

function connectTimeout(): Error {
  return Object.assign(new Error("connect timed out"), { code: "CONNECT_TIMEOUT" });
}

/** Calls back once: connected, failed, or out of time. */
function whenReady(socket: net.Socket, event: string, timeoutMs: number, done: Done): void {
  const timer = setTimeout(() => socket.destroy(connectTimeout()), timeoutMs);
  const end = (): void => {
    clearTimeout(timer);
    socket.off("error", failed);
    socket.off(event, ready);
  };
  const failed = (error: Error): void => {
    end();
    done(error, socket);
  };
  const ready = (): void => {
    end();
    done(null, socket);
  };
  socket.once("error", failed);
  socket.once(event, ready);
}

export interface ConnectionOptions {
  readonly keepAlive: boolean;
  readonly connectTimeoutMs: number;
}

/** The agent of a Unix socket or of plain TCP. */
export function plainAgent({ keepAlive, connectTimeoutMs }: ConnectionOptions): HttpAgent {
  // Without a name of its own the agent would work one out for TLS, which there is none of here.
  const agent = new HttpAgent({ keepAlive, servername: "" } as HttpAgentOptions);
  agent.createConnection = (options, done) => {
    const socket = net.connect(options as Target);
    whenReady(socket, "connect", connectTimeoutMs, done as Done);
    return undefined as unknown as Duplex;
  };
  return agent;
}

/** The files of the TLS settings, read again when one of them changes. */
class Material {
  readonly #settings: TlsSettings;
  #stamp = "";
  #context: tls.SecureContext | undefined;

  constructor(settings: TlsSettings) {
    this.#settings = settings;
  }

  async context(): Promise<tls.SecureContext> {
    const { certFile, keyFile, trustedCertsFile } = this.#settings;
    const files = [certFile, keyFile, trustedCertsFile];
    const stamp = files.map(stampOf).join(" ");
    if (this.#context !== undefined && stamp === this.#stamp) return this.#context;
    const [cert, key, ca] = await Promise.all(files.map(read));
    this.#context = tls.createSecureContext({
      minVersion: "TLSv1.2",
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
      ...(ca !== undefined && { ca }),
    });
    this.#stamp = stamp;
    return this.#context;
  }
}

function stampOf(path: string | undefined): string {
  if (path === undefined) return "-";
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined ? "missing" : `${found.ino}.${found.size}.${found.mtimeMs}`;
}

async function read(path: string | undefined): Promise<Buffer | undefined> {
  if (path === undefined) return undefined;
  try {
    return await readFile(path);
  } catch (error) {
    throw new StorageError(
      "failed-precondition",
      `cannot read the TLS file ${path}: ${error instanceof Error ? error.message : String(error)}`,
      { file: path },
      { cause: error },
    );
  }
}

/**
 * The agent of a TLS address. No request is sent before the server was checked against the CA and, where
 * the settings say so, against the known hosts.
 * @param host the host part of the configured address, which known hosts are listed under
 */
export function tlsAgent(
  settings: TlsSettings,
  host: string,
  { keepAlive, connectTimeoutMs }: ConnectionOptions,
): HttpsAgent {
  const agent = new HttpsAgent({ keepAlive });
  const material = new Material(settings);
  const open = async (options: Target): Promise<tls.TLSSocket> => {
    const servername = settings.serverName ?? (net.isIP(host) === 0 ? host : "");
    const secureContext = await material.context();
    const socket = tls.connect({
      ...options,
      secureContext,
      servername,
      rejectUnauthorized: settings.verifyChain,
      ALPNProtocols: ["http/1.1"],
      checkServerIdentity: (_name, certificate) =>
        tls.checkServerIdentity(settings.serverName ?? host, certificate),
    });
    await new Promise<void>((resolve, reject) => {
      whenReady(socket, "secureConnect", connectTimeoutMs, (error) =>
        error === null ? resolve() : reject(error),
      );
    });
    try {
      if (settings.verifyKnownHosts) await checkKnownHost(settings, host, socket);
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return socket;
  };
  agent.createConnection = (options, done) => {
    open(options as Target).then(
      (socket) => (done as Done)(null, socket),
      (error: Error) => (done as Done)(error, undefined as unknown as Duplex),
    );
    return undefined as unknown as Duplex;
  };
  return agent;
}
