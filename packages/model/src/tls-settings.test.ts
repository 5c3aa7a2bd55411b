import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { appFolders } from "./app-folders.js";
import { matchKnownHost, parseKnownHost, parseKnownHosts } from "./known-hosts.js";
import { ConfigTree, ScopedConfig } from "./scopes.js";
import { readTlsSettings } from "./tls-settings.js";

const HEX = "ab".repeat(32);

function read(
  config: unknown,
  files: readonly string[] = [],
  side: "server" | "client" = "server",
) {
  return readTlsSettings(new ScopedConfig([new ConfigTree(config)], [`libstorage.${side}`]), side, {
    folder: "/etc/x/tls",
    token: "libstorage",
    userKnownHosts: "/home/u/known_hosts",
    exists: (path) => files.includes(path),
  });
}

describe("TLS settings", () => {
  it("are off when nothing turns them on", () => {
    for (const tls of [
      undefined,
      false,
      { insecure: false, verifyPeers: false, clientCertRequired: false },
      { certFile: "/c", keyFile: "/k", disabled: true },
    ])
      assert.deepEqual(read({ libstorage: { tls } }, ["/c", "/k", "/home/u/known_hosts"]), {
        settings: undefined,
        problems: [],
      });
  });

  it("are off when disabled at any scope", () => {
    const on = { certFile: "/c", keyFile: "/k" };
    for (const config of [
      { libstorage: { tls: on, server: { tls: { disabled: true } } } },
      { libstorage: { tls: { disabled: true }, server: { tls: { ...on, disabled: false } } } },
      { libstorage: { tls: on, server: { libstorage: { tls: { disabled: "true" } } } } },
      { rexray: 1, libstorage: { server: { tls: false }, tls: on } },
    ])
      assert.equal(read(config, ["/c", "/k"]).settings, undefined);
  });

  it("look in the side, in a libstorage block inside it, at the top", () => {
    const config = {
      libstorage: {
        tls: { serverName: "top", certFile: "/top", keyFile: "/top.key", clientCertRequired: true },
        server: { tls: { serverName: "side" }, libstorage: { tls: { certFile: "/block" } } },
      },
    };
    assert.deepEqual(read(config, ["/block", "/top.key"]).settings, {
      certFile: "/block",
      keyFile: "/top.key",
      clientCertRequired: true,
      serverName: "side",
      verifyChain: true,
      verifyKnownHosts: false,
      knownHostsFiles: [],
    });
    assert.equal(read(config, ["/top", "/top.key"], "client").settings?.serverName, "top");
  });

  it("use the default files when they exist", () => {
    const folder = "/etc/x/tls";
    const files = ["libstorage.crt", "libstorage.key", "cacerts", "known_hosts"];
    const { settings } = read(
      {},
      files.map((file) => `${folder}/${file}`),
    );
    assert.equal(settings?.certFile, `${folder}/libstorage.crt`);
    assert.equal(settings?.trustedCertsFile, `${folder}/cacerts`);
    assert.equal(settings?.verifyKnownHosts, false);
    assert.deepEqual(settings?.knownHostsFiles, [`${folder}/known_hosts`]);
  });

  it("read the setting libstorage.tls itself", () => {
    const of = (tls: unknown) => read({ libstorage: { tls } }, ["/home/u/known_hosts"]).settings;
    assert.equal(of("insecure")?.verifyChain, false);
    assert.equal(of(true)?.verifyChain, true);
    const peers = of("verifyPeers");
    assert.deepEqual(
      [peers?.verifyChain, peers?.verifyKnownHosts, peers?.knownHostsFiles],
      [false, true, ["/home/u/known_hosts"]],
    );
    assert.deepEqual(of(`Host sha256 ${HEX}`)?.pinned, {
      host: "Host",
      algorithm: "sha256",
      fingerprint: HEX,
    });
  });

  it("apply later keys over earlier ones", () => {
    const of = (tls: object) => read({ libstorage: { tls } }, ["/hosts"]).settings;
    assert.equal(of({ insecure: true })?.verifyChain, false);
    assert.equal(of({ insecure: true, verifyPeers: false })?.verifyChain, true);
    assert.deepEqual(of({ knownHosts: "/hosts" })?.verifyKnownHosts, true);
    assert.deepEqual(of({ knownHosts: "/hosts", verifyPeers: false })?.verifyKnownHosts, false);
  });

  it("name every key that cannot be used", () => {
    const { problems } = read({
      libstorage: {
        tls: {
          certFile: "/no",
          trustedCertsFile: "/nor",
          knownHosts: 3,
          insecure: "maybe",
          serverName: "x",
        },
      },
    });
    assert.deepEqual(problems.map(({ path }) => path).sort(), [
      "libstorage.tls.certFile",
      "libstorage.tls.certFile",
      "libstorage.tls.insecure",
      "libstorage.tls.knownHosts",
      "libstorage.tls.trustedCertsFile",
    ]);
    assert.match(problems.map(({ message }) => message).join("\n"), /invalid crt file: \/no/);
    assert.match(read({ libstorage: { tls: "what" } }).problems[0]?.message ?? "", /verifyPeers/);
  });
});

describe("known hosts", () => {
  it("are read with and without colons", () => {
    const colons = HEX.toUpperCase().match(/../g)?.join(":");
    assert.equal(parseKnownHost(`h sha256 ${colons}`)?.fingerprint, HEX);
    assert.equal(parseKnownHost(`h  sha256 ${HEX}`), undefined);
    assert.equal(parseKnownHost(`h sha256 abc`), undefined);
    assert.deepEqual(parseKnownHosts(`# note\n\nh sha256 ${HEX}\r\nbad\n`).badLines, [4]);
  });

  it("accept, conflict or are unknown; the first line of a host decides", () => {
    const { hosts } = parseKnownHosts(`a x ${HEX}\nA x ${"cd".repeat(32)}`);
    assert.equal(matchKnownHost(hosts, "A", HEX.toUpperCase()), "accepted");
    assert.equal(matchKnownHost(hosts, "a", "cd".repeat(32)), "conflict");
    assert.equal(matchKnownHost(hosts, "b", HEX), "unknown");
  });
});

describe("folders of the application", () => {
  const root = { isRoot: true, home: "/root" };
  it("are the system's for root", () => {
    assert.deepEqual(
      appFolders({}, root, () => false),
      {
        token: "libstorage",
        etc: "/etc/libstorage",
        tls: "/etc/libstorage/tls",
        lib: "/var/lib/libstorage",
        log: "/var/log/libstorage",
        run: "/var/run/libstorage",
        user: "/root/.libstorage",
      },
    );
  });
  it("are below a home otherwise, under either program's variable", () => {
    assert.equal(
      appFolders({}, { isRoot: false, home: "/h" }, () => false).etc,
      "/h/.libstorage/etc",
    );
    assert.equal(appFolders({ REXRAY_HOME: "/x/" }, root, () => false).lib, "/x/var/lib");
    const env = { LIBSTORAGE_APPTOKEN: "rexray", REXRAY_HOME_ETC: "/e", REXRAY_HOME_LIB: "/none" };
    const folders = appFolders(env, root, (path) => path === "/e");
    assert.deepEqual([folders.tls, folders.lib], ["/e/tls", "/var/lib/rexray"]);
  });
});
