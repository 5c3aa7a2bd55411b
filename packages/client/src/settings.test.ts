import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { loadSettings } from "./settings.js";
import type { ClientSettings } from "./settings.js";

const OPERATIONS = "libstorage.integration.volume.operations.";

/** Key, value as the file has it, where it is found, what is found. Sections 15.2 and 16.4. */
const KEYS: readonly (readonly [string, string, (of: ClientSettings) => unknown, unknown])[] = [
  [`${OPERATIONS}create.disable`, "true", (of) => of.operations.create.disable, true],
  ["volume.create.disable", "true", (of) => of.operations.create.disable, true],
  [`${OPERATIONS}create.implicit`, "false", (of) => of.operations.create.implicit, false],
  [`${OPERATIONS}create.default.size`, "5", (of) => of.operations.create.size, 5],
  ["docker.size", "6", (of) => of.operations.create.size, 6],
  [`${OPERATIONS}create.default.fsType`, "xfs", (of) => of.operations.create.fsType, "xfs"],
  ["docker.fsType", "xfs", (of) => of.operations.create.fsType, "xfs"],
  [`${OPERATIONS}create.default.type`, "gold", (of) => of.operations.create.type, "gold"],
  ["docker.volumeType", "gold", (of) => of.operations.create.type, "gold"],
  [
    `${OPERATIONS}create.default.availabilityZone`,
    "z",
    (of) => of.operations.create.availabilityZone,
    "z",
  ],
  ["docker.availabilityZone", "z", (of) => of.operations.create.availabilityZone, "z"],
  [`${OPERATIONS}create.default.IOPS`, "7", (of) => of.operations.create.iops, 7],
  ["docker.iops", "7", (of) => of.operations.create.iops, 7],
  [`${OPERATIONS}remove.disable`, "true", (of) => of.operations.remove.disable, true],
  ["volume.remove.disable", "true", (of) => of.operations.remove.disable, true],
  [`${OPERATIONS}remove.force`, "true", (of) => of.operations.remove.force, true],
  [`${OPERATIONS}mount.preempt`, "true", (of) => of.operations.mount.preempt, true],
  ["volume.mount.preempt", "true", (of) => of.operations.mount.preempt, true],
  [`${OPERATIONS}mount.path`, "/m", (of) => of.operations.mount.path, "/m"],
  ["docker.mountDirPath", "/m", (of) => of.operations.mount.path, "/m"],
  [`${OPERATIONS}mount.rootPath`, "/r", (of) => of.operations.mount.rootPath, "/r"],
  ["linux.volume.rootpath", "/r", (of) => of.operations.mount.rootPath, "/r"],
  ["linux.volume.filemode", "493", (of) => of.operations.mount.fileMode, 0o755],
  [`${OPERATIONS}mount.retryCount`, "3", (of) => of.operations.mount.retryCount, 3],
  [`${OPERATIONS}mount.retryWait`, "2s", (of) => of.operations.mount.retryWaitMs, 2000],
  [
    `${OPERATIONS}unmount.ignoreUsedCount`,
    "true",
    (of) => of.operations.unmount.ignoreUsedCount,
    true,
  ],
  ["volume.unmount.ignoreusedcount", "true", (of) => of.operations.unmount.ignoreUsedCount, true],
  ["libstorage.host", "tcp://h:1", (of) => of.host, "tcp://h:1"],
  ["rexray.host", "tcp://h:2", (of) => of.host, "tcp://h:2"],
  ["libstorage.service", "VFS", (of) => of.service, "vfs"],
  ["rexray.service", "x", (of) => of.service, "x"],
  ["libstorage.client.type", "controller", (of) => of.type, "controller"],
  ["libstorage.client.auth.token", "abc", (of) => of.token, "abc"],
  ["libstorage.client.cache.instanceID", "1m", (of) => of.instanceIDCacheMs, 60_000],
  ["libstorage.http.disableKeepAlive", "true", (of) => of.keepAlive, false],
  ["libstorage.http.readTimeout", "5", (of) => of.responseTimeoutMs, 5000],
  ["libstorage.device.attachTimeout", "2s", (of) => of.attachTimeoutMs, 2000],
  ["libstorage.device.attachTimeout", "soon", (of) => of.attachTimeoutMs, 30_000],
  ["libstorage.device.scanType", "1", (of) => of.scan, "deep"],
  ["libstorage.device.scanType", "7", (of) => of.scan, "quick"],
];

describe("the client's settings", () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "libstorage-settings-"));
  });
  after(() => rmSync(folder, { recursive: true }));

  async function load(text: string, env = {}): Promise<ClientSettings> {
    const file = join(folder, "c.yml");
    writeFileSync(file, text);
    return loadSettings({ env: { LIBSTORAGE_HOME: folder, ...env }, file });
  }

  for (const [key, value, find, expected] of KEYS)
    it(`reads ${key}`, async () => {
      assert.notDeepEqual(find(await load("")), value === "soon" || value === "7" ? -1 : expected);
      assert.deepEqual(find(await load(`${key}: ${value}`)), expected);
      // The environment's variable of a key stands over the file.
      const name = key.toUpperCase().replaceAll(".", "_");
      assert.deepEqual(find(await load("", { [name]: value })), expected);
    });

  it("prefers a new name to an old one, and a scope further in", async () => {
    const both = `volume.mount.preempt: true\n${OPERATIONS}mount.preempt: false`;
    assert.equal((await load(both)).operations.mount.preempt, false);
    const inner = "libstorage.host: tcp://out:1\nlibstorage.client.libstorage.host: tcp://in:1";
    assert.equal((await load(inner)).host, "tcp://in:1");
  });

  it("has the reference's defaults", async () => {
    const { operations, ...rest } = await load("");
    assert.deepEqual(operations, {
      create: {
        disable: false,
        implicit: true,
        size: 16,
        fsType: "ext4",
        type: "",
        availabilityZone: "",
        iops: 0,
      },
      remove: { disable: false, force: false },
      mount: {
        preempt: false,
        path: `${folder}/var/lib/volumes`,
        rootPath: "/data",
        fileMode: 0o700,
        retryCount: 0,
        retryWaitMs: 5000,
      },
      unmount: { ignoreUsedCount: false },
    });
    assert.equal(rest.host, "unix:///var/run/libstorage/libstorage.sock");
    assert.equal(rest.attachTimeoutMs, 30_000);
    assert.equal(rest.instanceIDCacheMs, 30 * 60_000);
  });

  it("reads a token from a file, without its last line end", async () => {
    const file = join(folder, "token");
    writeFileSync(file, "abc\n");
    assert.equal((await load(`libstorage.client.auth.token: ${file}`)).token, "abc");
  });

  it("names every value that cannot be used", async () => {
    const text = `${OPERATIONS}create.default.size: -1\n${OPERATIONS}mount.retryWait: soon\nlibstorage.client.type: both`;
    await assert.rejects(load(text), (error: Error) => {
      for (const part of ["create.default.size", "mount.retryWait", "client.type"])
        assert.ok(error.message.includes(part), error.message);
      return true;
    });
    await assert.rejects(load("libstorage: [1"), { code: "invalid-argument" });
  });
});
