/** Two storage servers, each with services of its own, that know each other by mutual TLS. */
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import type { Duplex } from "node:stream";
import { join } from "node:path";
import { openClient } from "@libstorage/client";
import type { Client } from "@libstorage/client";
import { DRIVERS, ensureSet, loadConfig, openApp, SILENT } from "@libstorage/server";
import type { App } from "@libstorage/server";
import type { TlsSettings } from "@libstorage/model";

export interface Host {
  readonly app: App;
  readonly address: string;
  readonly client: Client;
  readonly tls: TlsSettings;
  readonly folder: string;
  /** Breaks every connection. */
  cut(): void;
  /** A second client of the same server, to be closed by the caller. */
  another(): Client;
  close(): Promise<void>;
}

/** Certificates of one CA for both. */
export async function makeCertificates(): Promise<{ folder: string; tls: TlsSettings }> {
  const folder = await mkdtemp(join(tmpdir(), "libstorage-streams-tls-"));
  await ensureSet({ folder, days: 30, hosts: ["127.0.0.1", "localhost"] });
  const tls: TlsSettings = {
    certFile: join(folder, "client.crt"),
    keyFile: join(folder, "client.key"),
    trustedCertsFile: join(folder, "cacerts"),
    clientCertRequired: false,
    verifyChain: true,
    verifyKnownHosts: false,
    knownHostsFiles: [],
  };
  return { folder, tls };
}

/** @param services YAML below `services`, indented by six spaces */
export async function startHost(
  certificates: { readonly folder: string; readonly tls: TlsSettings },
  services: string,
): Promise<Host> {
  const folder = await mkdtemp(join(tmpdir(), "libstorage-streams-"));
  const text = `libstorage:\n  server:\n    services:\n${services}`;
  const env = { LIBSTORAGE_HOME: join(folder, "home") };
  const app = await openApp(loadConfig(DRIVERS, { text, env, isRoot: true, home: folder }), {
    log: SILENT,
  });
  await app.ready;
  const file = (name: string): Buffer => readFileSync(join(certificates.folder, name));
  const server = createServer(
    {
      cert: file("server.crt"),
      key: file("server.key"),
      ca: file("cacerts"),
      requestCert: true,
      rejectUnauthorized: true,
    },
    (req, res) => app.handler(req, res),
  );
  // On a busy host a test may pause for longer than Node would keep a connection.
  server.keepAliveTimeout = 600_000;
  server.requestTimeout = 0;
  const sockets = new Set<Duplex>();
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { tls } = certificates;
  const another = (): Client => openClient({ host: address, tls, responseTimeoutMs: 600_000 });
  const client = another();
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    app,
    address,
    client,
    tls,
    folder,
    cut,
    another,
    async close() {
      client.close();
      app.stop();
      cut();
      server.close();
      await app.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
