/** Connections over TLS: no request goes out before the server was checked. Loaded when TLS is on. */
import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { Agent as HttpsAgent } from "node:https";
import * as net from "node:net";
import type { Duplex } from "node:stream";
import * as tls from "node:tls";
import { StorageError } from "@libstorage/model";
import type { TlsSettings } from "@libstorage/model";
import { whenReady } from "./connection.js";
import type { ConnectionOptions, Done, Target } from "./connection.js";
import { checkKnownHost } from "./known-hosts.js";

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
