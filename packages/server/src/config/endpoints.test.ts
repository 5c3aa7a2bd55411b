import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { SERVICE, load, one } from "./config-fixture.js";

describe("endpoints", () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "config-tls-"));
    for (const name of ["c", "k", "ca"]) writeFileSync(join(folder, name), "");
  });
  after(() => rmSync(folder, { recursive: true }));
  const at = (address: string): string =>
    `${SERVICE}libstorage.server.endpoints.E.address: "${address}"\n`;

  it("are read in every spelling", () => {
    const of = (address: string): unknown => load(at(address)).endpoints[0]?.address;
    assert.deepEqual(of("tcp://127.0.0.1:7979"), { kind: "tcp", host: "127.0.0.1", port: 7979 });
    assert.deepEqual(of("tcp"), { kind: "tcp", host: "127.0.0.1", port: 0 });
    assert.deepEqual(of("unix"), { kind: "auto-unix" });
    assert.deepEqual(of("unix:///run/x.sock"), { kind: "unix", path: "/run/x.sock" });
    assert.deepEqual(
      load(`${SERVICE}libstorage.host: tcp://127.0.0.1:1`).endpoints[0]?.name,
      "host",
    );
    one(`${SERVICE}libstorage.server.endpoints.e: {socketMode: 600}`, /e\.address: is missing/);
    one(at("ftp://x/y"), /must be an address/);
    one(
      `${at("unix:///a")}libstorage.server.endpoints.F.address: unix:///a`,
      /is the address of endpoint e already/,
    );
  });

  it("of other hosts need TLS with client certificates, or the word insecure", () => {
    const tls = `libstorage.tls: {certFile: ${folder}/c, keyFile: ${folder}/k, trustedCertsFile: ${folder}/ca, clientCertRequired: true}\n`;
    one(at("tcp://:7979"), /other hosts, without TLS.*libstorage\.server\.insecure: true/);
    one(
      at("tcp://0.0.0.0:7979") + tls.replace("clientCertRequired: true", "insecure: false"),
      /without verified client certificates/,
    );
    one(
      at("tcp://0.0.0.0:7979") +
        tls.replace("clientCertRequired: true", "clientCertRequired: true, insecure: true"),
      /without verified client certificates/,
    );
    assert.equal(load(at("tcp://:7979") + tls).endpoints[0]?.isTls, true);
    assert.equal(load(at("unix:///x") + tls).endpoints[0]?.isTls, false);
    const env = { LIBSTORAGE_TLS_SOCKITTOME: "true" };
    assert.equal(load(at("unix:///x") + tls, { env }).endpoints[0]?.isTls, true);
    assert.equal(load(`${at("tcp://:7979")}libstorage.server.insecure: true`).insecure, true);
  });

  it("with TLS need a certificate, and a CA for client certificates", () => {
    one(`${at("tcp")}libstorage.tls: true`, /certFile: TLS is on .* no certificate/);
    one(
      `${at("tcp")}libstorage.tls: {certFile: ${folder}/c, keyFile: ${folder}/k, clientCertRequired: true}`,
      /trustedCertsFile: is missing/,
    );
    one(
      `${at("tcp")}libstorage.tls: {certFile: ${folder}/c, keyFile: ${folder}/k, verifyPeers: true}`,
      /knownHosts: is missing/,
    );
  });
});
