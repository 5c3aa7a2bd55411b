import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { Agent } from "node:https";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import type { TestContext } from "node:test";
import { connect } from "node:tls";
import type { TLSSocket } from "node:tls";
import type { TlsSettings } from "@libstorage/model";
import { SILENT, TlsWatcher, ensureSet, openListeners } from "@libstorage/server";
import type { Logger } from "@libstorage/server";
import { certificates, folderFor, request, save, talk, until } from "./fixture.js";
import type { Certificates } from "./fixture.js";

let all: Certificates;
before(async () => {
  all = await certificates();
});

interface Served {
  readonly folder: string;
  readonly port: number;
  readonly url: string;
  readonly watcher: TlsWatcher;
  readonly warnings: string[];
}

async function serve(t: TestContext, settings: Partial<TlsSettings> = {}): Promise<Served> {
  const folder = folderFor(t);
  save(folder, "server", all.server);
  writeFileSync(join(folder, "cacerts"), all.ca.certificate);
  const tls: TlsSettings = {
    certFile: join(folder, "server.crt"),
    keyFile: join(folder, "server.key"),
    trustedCertsFile: join(folder, "cacerts"),
    clientCertRequired: true,
    verifyChain: true,
    verifyKnownHosts: false,
    knownHostsFiles: [],
    ...settings,
  };
  const warnings: string[] = [];
  const note = (fields: object, message: string): void =>
    void warnings.push(`${message} ${JSON.stringify(fields)}`);
  const log: Logger = { ...SILENT, warn: note, child: () => log };
  const watcher = new TlsWatcher(tls, log);
  t.after(() => watcher.close());
  const listeners = await openListeners({
    endpoints: [
      {
        name: "tls",
        address: { kind: "tcp", host: "127.0.0.1", port: 0 },
        socketMode: 0o600,
        isTls: true,
      },
    ],
    http: {
      bodyLimitBytes: 1024,
      maxConnections: 100,
      headersTimeoutMs: 1_000,
      requestTimeoutMs: 2_000,
      keepAliveTimeoutMs: 20_000,
    },
    handler: (req, res) => {
      const socket = req.socket as TLSSocket;
      res.end(`${socket.authorized} ${socket.getPeerX509Certificate()?.subject ?? "nobody"}`);
    },
    log,
    runFolder: folder,
    tls: watcher,
  });
  t.after(() => listeners.close(0));
  const address = listeners.endpoints[0]?.address;
  const port = address?.kind === "tcp" ? address.port : 0;
  return { folder, port, url: `https://localhost:${port}/`, watcher, warnings };
}

const as = (pair: { key: string; certificate: string }) => ({
  key: pair.key,
  cert: pair.certificate,
  ca: all.ca.certificate,
  agent: false as const,
});

describe("mutual TLS", () => {
  it("lets in who holds a certificate of the CA", async (t) => {
    const { url } = await serve(t);
    assert.equal((await request(url, as(all.client))).body, "true CN=host-1\nO=libstorage");
  });

  it("lets the same client in again on a resumed session", async (t) => {
    const { url } = await serve(t);
    const agent = new Agent({ ...as(all.client), keepAlive: false, maxCachedSessions: 10 });
    for (let round = 0; round < 3; round += 1)
      assert.equal((await request(url, { agent })).body, "true CN=host-1\nO=libstorage");
  });

  it("turns away who has none, a foreign one, or one that has ended, and says why in the log", async (t) => {
    const { url, warnings } = await serve(t);
    await assert.rejects(request(url, { ca: all.ca.certificate, agent: false }));
    await assert.rejects(request(url, as(all.foreign)));
    await assert.rejects(request(url, as(all.expired)));
    const said = warnings.filter((text) => text.includes("turned away")).join("\n");
    assert.match(said, /showed no certificate/);
    assert.match(
      said,
      /UNABLE_TO_VERIFY_LEAF_SIGNATURE|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_GET_ISSUER/,
    );
    assert.match(said, /CERT_HAS_EXPIRED/);
  });

  it("does not take a server's certificate for a client's", async (t) => {
    const { url, warnings } = await serve(t);
    await assert.rejects(request(url, as(all.server)));
    assert.match(warnings.join("\n"), /INVALID_PURPOSE/);
  });

  it("shows the client a certificate that bears its name, and no old protocol", async (t) => {
    const { url, port } = await serve(t);
    await assert.rejects(request(url, { ...as(all.client), servername: "elsewhere.example" }), {
      code: "ERR_TLS_CERT_ALTNAME_INVALID",
    });
    const socket = connect({ port, ...as(all.client), maxVersion: "TLSv1.1", minVersion: "TLSv1" });
    const error = await new Promise<Error>((resolve) => {
      socket.once("error", resolve);
    });
    assert.ok(error);
  });

  it("is not asked of clients where it is not required, but a name needs proof", async (t) => {
    const { url } = await serve(t, { clientCertRequired: false });
    assert.equal(
      (await request(url, { ca: all.ca.certificate, agent: false })).body,
      "false nobody",
    );
    assert.match((await request(url, as(all.foreign))).body, /^false /);
  });
});

describe("known hosts", () => {
  it("let in clients by fingerprint alone", async (t) => {
    const folder = folderFor(t);
    const file = join(folder, "known_hosts");
    const { fingerprint256 } = new X509Certificate(all.foreign.certificate);
    writeFileSync(file, `# note\nstranger sha256 ${fingerprint256}\nbroken line\n`);
    const { url, warnings } = await serve(t, {
      verifyChain: false,
      verifyKnownHosts: true,
      knownHostsFiles: [file],
    });
    assert.match((await request(url, as(all.foreign))).body, /stranger/);
    await assert.rejects(request(url, as(all.client)));
    await assert.rejects(request(url, { ca: all.ca.certificate, agent: false }));
    assert.match(warnings.join("\n"), /known_hosts, line 3: not HOST ALG FINGERPRINT/);
    assert.match(warnings.join("\n"), /is no known host's/);
    // A line that is added counts without a restart.
    const more = new X509Certificate(all.client.certificate).fingerprint256;
    writeFileSync(file, `host-1 sha256 ${more.replaceAll(":", "").toLowerCase()}\n`);
    await until(
      () =>
        request(url, as(all.client)).then(
          () => true,
          () => false,
        ),
      "the new known host gets in",
    );
  });
});

describe("other languages on a TLS port", () => {
  it("plain HTTP is told so", async (t) => {
    const { port, url } = await serve(t);
    const said = await talk(
      { port },
      (socket) => void socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    );
    assert.match(said, /^HTTP\/1\.0 400 Bad Request\r\n/);
    assert.match(said, /Client sent an HTTP request to an HTTPS server\.\n$/);
    assert.equal((await request(url, as(all.client))).status, 200);
  });

  it("silence, noise and half a handshake end by themselves", async (t) => {
    const { port, url } = await serve(t);
    const started = Date.now();
    assert.equal(await talk({ port }, () => {}), "");
    await talk({ port }, (socket) => void socket.write(Buffer.from([0x16, 0x03, 0x01, 0x02])));
    await talk({ port }, (socket) => void socket.write(Buffer.alloc(500, 0x16)));
    assert.ok(Date.now() - started < 10_000);
    assert.equal((await request(url, as(all.client))).status, 200);
  });

  it("a slow request over TLS is cut as well", async (t) => {
    const { port } = await serve(t);
    const socket = connect({ port, host: "localhost", ...as(all.client) });
    let text = "";
    socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
    socket.on("error", () => {});
    socket.write("GET / HTTP/1.1\r\nHost: x\r\nA: ");
    await new Promise((resolve) => {
      socket.once("close", resolve);
    });
    assert.match(text, /^HTTP\/1\.1 408 /);
  });
});

/** A client that keeps one connection and says whose certificate the server showed on it. */
function keepingAgent(t: TestContext): Agent {
  const agent = new Agent({ ...as(all.client), keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  return agent;
}

async function daysShown({ port }: Served): Promise<number> {
  const socket = connect({ port, host: "localhost", ...as(all.client) });
  await new Promise((resolve) => {
    socket.once("secureConnect", resolve);
  });
  const { validTo = "" } = socket.getPeerX509Certificate() ?? {};
  socket.destroy();
  return Math.round((Date.parse(validTo) - Date.now()) / 86_400_000);
}

describe("new certificates", () => {
  it("are used without a restart and without dropping a connection", async (t) => {
    const served = await serve(t);
    const agent = keepingAgent(t);
    let socket: object | undefined;
    agent.on("free", (one: object) => {
      socket ??= one;
      assert.equal(one, socket, "the connection was dropped");
    });
    assert.equal((await request(served.url, { agent })).status, 200);
    assert.equal(await daysShown(served), 20);
    save(served.folder, "server", all.renewed);
    await until(async () => (await daysShown(served)) === 90, "the new certificate is shown");
    assert.equal((await request(served.url, { agent })).status, 200);
    assert.ok(socket);
  });

  it("that are broken change nothing and are warned about", async (t) => {
    const served = await serve(t);
    writeFileSync(join(served.folder, "server.key"), all.client.key);
    const warned = (pattern: RegExp): Promise<void> =>
      until(() => served.warnings.some((text) => pattern.test(text)), `a warning ${pattern}`);
    await warned(/new TLS files cannot be used.*server\.key is not the key of/);
    assert.equal((await request(served.url, as(all.client))).status, 200);
    writeFileSync(join(served.folder, "server.crt"), "nonsense");
    await warned(/server\.crt holds no certificate/);
    assert.equal(await daysShown(served), 20);
    save(served.folder, "server", all.renewed);
    await until(async () => (await daysShown(served)) === 90, "the repaired pair is shown");
  });

  it("of the CA decide about new clients", async (t) => {
    const served = await serve(t);
    await assert.rejects(request(served.url, as(all.foreign)));
    const other = await import("@libstorage/server").then(({ makeCA }) =>
      makeCA({ commonName: "third CA", days: 5 }),
    );
    writeFileSync(join(served.folder, "cacerts"), other.certificate);
    await until(
      () =>
        request(served.url, as(all.client)).then(
          () => false,
          () => true,
        ),
      "the old client is turned away",
    );
  });

  it("are asked for 30 days before the old ones end", async (t) => {
    const { warnings, watcher } = await serve(t);
    assert.match(warnings.join("\n"), /a certificate ends soon.*server\.crt/);
    const [first] = watcher.certificates();
    assert.ok(first !== undefined && first.daysLeft > 19 && first.daysLeft <= 20);
    assert.equal(first.subject, "CN=localhost, O=libstorage");
  });
});

describe("files that cannot be used", () => {
  it("are named before anything opens", async (t) => {
    const of = (name: string, text: string) => async (): Promise<void> => {
      const folder = folderFor(t);
      save(folder, "server", all.server);
      writeFileSync(join(folder, "cacerts"), all.ca.certificate);
      writeFileSync(join(folder, name), text);
      new TlsWatcher(
        {
          certFile: join(folder, "server.crt"),
          keyFile: join(folder, "server.key"),
          trustedCertsFile: join(folder, "cacerts"),
          clientCertRequired: true,
          verifyChain: true,
          verifyKnownHosts: false,
          knownHostsFiles: [],
        },
        SILENT,
      ).close();
      return Promise.resolve();
    };
    await assert.rejects(of("server.key", "x"), /server\.key holds no usable private key/);
    await assert.rejects(of("server.key", all.client.key), /is not the key of/);
    await assert.rejects(of("server.crt", ""), /server\.crt holds no certificate/);
    await assert.rejects(of("cacerts", "x"), /cacerts holds no certificate/);
    const damaged = all.server.certificate.replace(/\n[A-Za-z0-9+/]{64}\r?\n/, "\n");
    await assert.rejects(of("server.crt", damaged), /is damaged|is not the key/);
  });
});

describe("a set of certificates", () => {
  it("is made once, kept while it is good, renewed when it is not", async (t) => {
    const folder = folderFor(t);
    const options = { folder, days: 365, hosts: ["localhost", "127.0.0.1", "::1"] };
    const what = async (more: object = {}): Promise<string> =>
      (await ensureSet({ ...options, ...more })).map((one) => one.what).join(" ");
    assert.equal(await what(), "made made made");
    assert.equal(statSync(join(folder, "server.key")).mode & 0o777, 0o600);
    assert.equal(statSync(join(folder, "ca.key")).mode & 0o777, 0o600);
    assert.equal(await what(), "kept kept kept");
    assert.equal(await what({ hosts: ["storage.example.org"] }), "kept renewed kept");
    // Signed by another CA: found although the CA itself is fine.
    save(folder, "client", all.client);
    assert.equal(
      (await ensureSet({ ...options, hosts: ["storage.example.org"] })).at(-1)?.why,
      "it ends on " + new X509Certificate(all.client.certificate).validTo,
    );
    const server = new X509Certificate(readFileSync(join(folder, "server.crt")));
    const ca = new X509Certificate(readFileSync(join(folder, "cacerts")));
    assert.ok(server.verify(ca.publicKey) && server.checkHost("storage.example.org"));
  });
});
