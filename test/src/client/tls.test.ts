import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { copyFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openClient } from "@libstorage/client";
import { loadSettings } from "@libstorage/client/host";
import { StorageError } from "@libstorage/model";
import type { TlsSettings } from "@libstorage/model";
import { BIN, makeFolder, run, SERVER_BIN, startServer } from "./fixture.js";
import type { TestServer } from "./fixture.js";

describe("the client over TLS", () => {
  let folder: string;
  let foreign: string;
  let server: TestServer;
  let fingerprint: string;

  const file = (name: string): string => join(folder, name);
  const base = (): TlsSettings => ({
    certFile: file("client.crt"),
    keyFile: file("client.key"),
    trustedCertsFile: file("cacerts"),
    clientCertRequired: false,
    verifyChain: true,
    verifyKnownHosts: false,
    knownHostsFiles: [],
  });
  async function list(
    tls: TlsSettings | undefined,
    host = server.host,
  ): Promise<readonly string[]> {
    const client = openClient({ host, repeatMs: 0, ...(tls !== undefined && { tls }) });
    try {
      return Object.keys(await client.services({}, undefined, {}));
    } finally {
      client.close();
    }
  }
  async function refusal(tls: TlsSettings | undefined, host?: string): Promise<StorageError> {
    const error: unknown = await list(tls, host).then(
      () => assert.fail("was let in"),
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof StorageError, String(error));
    return error;
  }

  before(async () => {
    folder = await makeFolder();
    foreign = await makeFolder();
    for (const one of [folder, foreign]) {
      const { code, stderr } = await run(SERVER_BIN, ["tls", "init", "--folder", one]);
      assert.equal(code, 0, stderr);
    }
    server = await startServer({
      tls: {
        cert: readFileSync(file("server.crt")),
        key: readFileSync(file("server.key")),
        ca: readFileSync(file("cacerts")),
        requestCert: true,
        rejectUnauthorized: true,
      },
    });
    const [leaf = ""] =
      /-----BEGIN[\s\S]*?END CERTIFICATE-----/.exec(await readFile(file("server.crt"), "utf8")) ??
      [];
    fingerprint = createHash("sha256").update(new X509Certificate(leaf).raw).digest("hex");
  });
  after(async () => {
    await server.close();
    for (const one of [folder, foreign]) await rm(one, { recursive: true });
  });

  it("shows its certificate and checks the server's", async () => {
    assert.deepEqual(await list(base()), ["mock", "vfs"]);
  });

  it("does not trust a CA that it was not given", async () => {
    const error = await refusal({ ...base(), trustedCertsFile: join(foreign, "cacerts") });
    assert.equal(error.code, "unauthenticated");
    assert.match(error.message, /not from a trusted CA.*trustedCertsFile/);
  });

  it("is told that its certificate is missing or foreign", async () => {
    const { certFile: _cert, keyFile: _key, ...without } = base();
    for (const tls of [
      without,
      { ...base(), certFile: join(foreign, "client.crt"), keyFile: join(foreign, "client.key") },
    ]) {
      const error = await refusal(tls);
      assert.match(error.message, /refused this client's certificate.*certFile|broke/);
    }
  });

  it("looks for the name it was given, which is also the Host header", async () => {
    const error = await refusal({ ...base(), serverName: "storage.example" });
    assert.match(error.message, /is for another name: set libstorage\.tls\.serverName/);
    server.requests.length = 0;
    assert.deepEqual(await list({ ...base(), serverName: "localhost" }), ["mock", "vfs"]);
    const raw = server.requests[0]?.rawHeaders ?? [];
    assert.equal(raw[raw.findIndex((name) => name.toLowerCase() === "host") + 1], "localhost");
  });

  it("knows hosts by their fingerprint", async () => {
    const known = { ...base(), verifyChain: false, verifyKnownHosts: true };
    const hosts = file("known_hosts");
    await writeFile(hosts, "# nobody\nelsewhere sha256 " + "0".repeat(64) + "\n");
    const unknown = await refusal({ ...known, knownHostsFiles: [hosts] });
    assert.match(unknown.message, /^unknown host: 127\.0\.0\.1/);
    // The line to add is the line that is missing.
    const line = /"(127\.0\.0\.1 sha256 [0-9a-f]{64})"/.exec(unknown.message)?.[1];
    assert.equal(line, `127.0.0.1 sha256 ${fingerprint}`);
    await writeFile(hosts, `${line}\n`);
    assert.deepEqual(await list({ ...known, knownHostsFiles: [hosts] }), ["mock", "vfs"]);
    await writeFile(hosts, `127.0.0.1 sha256 ${"1".repeat(64)}\n${line}\n`);
    const conflict = await refusal({ ...known, knownHostsFiles: [hosts] });
    assert.match(conflict.message, /^conflict: /);
    assert.equal(conflict.code, "unauthenticated");
    await writeFile(hosts, "127.0.0.1 sha256\n");
    assert.match((await refusal({ ...known, knownHostsFiles: [hosts] })).message, /line 1 is not/);
  });

  it("with a pinned host consults nothing else", async () => {
    const pinned = { host: "127.0.0.1", algorithm: "sha256", fingerprint };
    const tls = { ...base(), verifyChain: false, verifyKnownHosts: true, pinned };
    assert.deepEqual(await list(tls), ["mock", "vfs"]);
    const other = { ...pinned, fingerprint: "2".repeat(64) };
    assert.match((await refusal({ ...tls, pinned: other })).message, /^conflict: /);
  });

  it("asks no server before it is checked", async () => {
    server.requests.length = 0;
    const pinned = { host: "127.0.0.1", algorithm: "sha256", fingerprint: "3".repeat(64) };
    await refusal({ ...base(), verifyChain: false, verifyKnownHosts: true, pinned });
    assert.deepEqual(server.requests, []);
  });

  it("trusts anything when told to", async () => {
    const { trustedCertsFile: _ca, ...rest } = base();
    assert.deepEqual(await list({ ...rest, verifyChain: false }), ["mock", "vfs"]);
  });

  it("explains plain HTTP at a TLS port, and TLS at a plain one", async () => {
    assert.equal((await refusal(undefined)).code, "unavailable");
    const plain = await startServer();
    const { createServer } = await import("node:http");
    const { listen } = await import("./fixture.js");
    const http = createServer(plain.app.handler);
    const error = await refusal(base(), await listen(http));
    assert.match(error.message, /does not speak TLS|broke/);
    http.close();
    await plain.close();
  });

  it("takes a renewed certificate without a restart", async () => {
    const mine = { ...base(), certFile: file("mine.crt"), keyFile: file("mine.key") };
    await copyFile(join(foreign, "client.crt"), mine.certFile);
    await copyFile(join(foreign, "client.key"), mine.keyFile);
    const client = openClient({ host: server.host, tls: mine, repeatMs: 0 });
    await assert.rejects(client.services({}, undefined, {}));
    await copyFile(file("client.crt"), mine.certFile);
    await copyFile(file("client.key"), mine.keyFile);
    assert.ok("vfs" in (await client.services({}, undefined, {})));
    client.close();
  });

  it("names a file that cannot be read", async () => {
    const error = await refusal({ ...base(), keyFile: file("none.key") });
    assert.match(error.message, /cannot read the TLS file .*none\.key/);
  });

  it("is configured like the reference", async () => {
    const config = file("config.yml");
    await writeFile(
      config,
      `
libstorage:
  host: ${server.host}
  client:
    libstorage:
      tls:
        certFile: ${file("client.crt")}
        keyFile: ${file("client.key")}
  tls:
    trustedCertsFile: $CA
`,
    );
    const env = { LIBSTORAGE_HOME: folder, CA: file("cacerts") };
    const { tls, host } = await loadSettings({ env, file: config });
    assert.ok(tls);
    assert.deepEqual(await list(tls, host), ["mock", "vfs"]);
    const { code, stdout, stderr } = await run(BIN, ["service", "ls", "-c", config], env);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /vfs/);
    const off = await loadSettings({
      env: { ...env, LIBSTORAGE_TLS_DISABLED: "true" },
      file: config,
    });
    assert.equal(off.tls, undefined);
    await assert.rejects(
      loadSettings({ env: { ...env, LIBSTORAGE_CLIENT_TLS_CERTFILE: "/none.crt" }, file: config }),
      /certfile|certFile/i,
    );
  });
});
