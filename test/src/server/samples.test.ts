import assert from "node:assert/strict";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { DRIVERS, EXPORTERS, configurationPage, loadConfig } from "@libstorage/server";
import type { ServerConfig } from "@libstorage/server";
import { ROOT, folderFor } from "./fixture.js";

const SAMPLES = join(ROOT, "config");

describe("samples", () => {
  const expected: Readonly<Record<string, (config: ServerConfig) => void>> = {
    "single-host.yml": ({ endpoints, services }) => {
      assert.deepEqual(
        endpoints.map(({ isTls }) => isTls),
        [false],
      );
      assert.equal(services[0]?.driver, "vfs");
    },
    "centralized.yml": ({ endpoints, tls, services }) => {
      assert.deepEqual(
        endpoints.map(({ isTls }) => isTls),
        [true, false],
      );
      assert.equal(tls?.clientCertRequired, true);
      assert.equal(services[0]?.uniqueNames, true);
    },
    "qmp.yml": ({ qmp, services }) => {
      assert.deepEqual(qmp, {
        socket: "/run/libstorage/qmp.sock",
        socketFolder: "/run/libstorage/nbd",
        insecure: false,
      });
      assert.deepEqual(
        services[0]?.exports.map(({ name }) => name),
        ["nbd", "fuse", "vhost-user-blk"],
      );
    },
    "hypervisor.yml": ({ hypervisor, services }) => {
      assert.equal(hypervisor.fileLocations[0], "/var/lib/libvirt/images/*.img");
      assert.equal(services[0]?.driver, "image");
    },
    "btrfs.yml": ({ services }) => {
      assert.deepEqual(
        services.map(({ driver, options }) => [driver, (options as { quota: string }).quota]),
        [
          ["btrfs", "require"],
          ["btrfs", "auto"],
        ],
      );
    },
    "iscsi.yml": ({ services }) => {
      const [service] = services;
      assert.equal(service?.exporter?.name, "iscsi-lio");
      const { portals, chap } = service.exporter.options as { portals: object[]; chap: object };
      assert.deepEqual(portals, [{ address: "10.0.0.1", port: 3260 }]);
      assert.deepEqual(chap, { mode: "mutual", secretsFile: "/etc/libstorage/iscsi-chap.yml" });
    },
    "lvm-iscsi.yml": ({ endpoints, tls, services }) => {
      assert.deepEqual(
        endpoints.map(({ isTls }) => isTls),
        [true, false],
      );
      assert.equal(tls?.clientCertRequired, true);
      assert.equal(services.length, 2);
      // What operators copy lets nobody in without a password, and listens where it is told to.
      for (const { driver, exporter } of services) {
        assert.deepEqual([driver, exporter?.name], ["lvm-iscsi", "iscsi-lio"]);
        const { portals, chap } = (exporter?.options ?? {}) as { portals: object[]; chap: object };
        assert.deepEqual(portals, [{ address: "10.0.0.1", port: 3260 }]);
        assert.deepEqual(chap, { mode: "mutual", secretsFile: "/etc/libstorage/iscsi-chap.yml" });
      }
    },
    "btrfs-nfs.yml": ({ services }) => {
      assert.deepEqual(
        services.map(({ driver, exporter }) => [driver, exporter?.name]),
        [["btrfs", "nfs"]],
      );
      const options = services.map(({ exporter }) => exporter?.options as { networks: string[] });
      assert.deepEqual(options[0]?.networks, ["10.1.0.0/24"]);
    },
    "sidecar.yml": ({ endpoints, http }) => {
      assert.equal(endpoints[0]?.socketMode, 0o660);
      assert.equal(http.bodyLimitBytes, 256 * 1024);
    },
  };

  it("are all known here", () => {
    const files = readdirSync(SAMPLES).filter((name) => name.endsWith(".yml"));
    for (const name of Object.keys(expected)) assert.ok(files.includes(name), name);
  });

  for (const name of readdirSync(SAMPLES).filter((one) => one.endsWith(".yml")))
    it(`${name} is loaded`, (t) => {
      // The certificates that a sample names are not on this host: they stand in a folder of the test.
      const folder = folderFor(t);
      const tls = join(folder, "tls");
      mkdirSync(tls);
      for (const file of ["server.crt", "server.key", "cacerts"])
        writeFileSync(join(tls, file), "");
      const text = readFileSync(join(SAMPLES, name), "utf8").replaceAll("/etc/libstorage/tls", tls);
      const config = loadConfig(DRIVERS, { text, env: {}, isRoot: true, home: folder }, EXPORTERS);
      assert.ok(config.endpoints.length > 0 && config.services.length > 0);
      expected[name]?.(config);
    });
});

describe("docs/configuration.md", () => {
  it("is what the schemas say; npm run docs writes it anew", () => {
    const page = readFileSync(join(ROOT, "docs/configuration.md"), "utf8");
    assert.equal(page, configurationPage({ drivers: DRIVERS, exporters: EXPORTERS }));
    assert.doesNotMatch(page, /\[object Object\]/, "what a key may be is said in words");
  });
});
