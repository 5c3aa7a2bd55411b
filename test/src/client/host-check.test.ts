/** What `libstorage host check` finds on a host, what it cleans, and what it leaves alone. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { checkHost, loadSettings, runCommand, withHostLock } from "@libstorage/client/host";
import type { CheckOptions, Exec, Finding } from "@libstorage/client/host";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import type { VolumeService } from "@libstorage/model";
import { run, startServer } from "./fixture.js";
import type { TestServer } from "./fixture.js";
import { cannotMount, openHost } from "./host-fixture.js";
import type { TestHost } from "./host-fixture.js";

const skip = cannotMount();
const LONG_AGO = new Date(Date.now() - 3_600_000);

describe("host check", { skip }, () => {
  let server: TestServer;
  let service: VolumeService;
  let host: TestHost;
  let lib: string;
  let records: string;
  let volumeID: string;

  before(async () => {
    server = await startServer();
    service = server.app.service;
  });
  after(() => server.close());
  beforeEach(async () => {
    host = await openHost(service);
    lib = join(host.folder, "var/lib");
    records = join(lib, "mounts/test/vfs");
    volumeID = (await service.volumeCreate({ service: "vfs" }, { name: "web" }, {})).id;
  });
  afterEach(async () => {
    await host.close();
    await service.volumeRemove({ service: "vfs", volumeID, force: true }, undefined, {});
  });

  async function check(isFixing: boolean, change: Partial<CheckOptions> = {}, exec?: Exec) {
    const settings = await loadSettings({
      env: { LIBSTORAGE_HOME: host.folder, LIBSTORAGE_CONFIG: "" },
    });
    return checkHost(
      {
        executors: {
          config: new ScopedConfig([new ConfigTree({})]),
          libFolder: lib,
          hostName: "host-a",
          isRoot: true,
          exec: exec ?? runCommand,
          places: { sys: join(host.folder, "sys"), iscsi: [join(host.folder, "iscsi")] },
        },
        mountPath: settings.operations.mount.path,
        signal: new AbortController().signal,
        attachments: async () => ({
          known: true,
          volumeIDs: await host.volumes.host.ownVolumes({}),
        }),
        giveBack: () => async (id) => {
          await host.volumes.unmount(id, { force: true }, {});
        },
        ...change,
      },
      isFixing,
    );
  }
  const brief = (findings: readonly Finding[]): string[] =>
    findings.map(({ kind, state }) => `${kind} ${state}`);

  async function phase(name: "mounting" | "unmounting"): Promise<void> {
    const file = join(records, `${volumeID}.json`);
    const record = JSON.parse(await readFile(file, "utf8")) as object;
    await writeFile(file, JSON.stringify({ ...record, phase: name }));
  }

  it("finds nothing where nothing is wrong, before, during and after a use", async () => {
    assert.deepEqual(await check(true), []);
    await host.volumes.mount("web", {}, {});
    assert.deepEqual(await check(true), []);
    assert.equal((await host.mounts()).length, 1);
    await host.volumes.unmount("web", {}, {});
    assert.deepEqual(await check(true), []);
    // Locks go with their volumes.
    assert.deepEqual(await readdir(records), []);
  });

  it("a record whose mount is gone goes with --fix only", async () => {
    const { mountPoint } = await host.volumes.mount("web", {}, {});
    spawnSync("umount", [mountPoint]);
    assert.deepEqual(brief(await check(false)), ["record-without-mount found"]);
    assert.ok(existsSync(join(records, `${volumeID}.json`)));
    assert.deepEqual(brief(await check(true)), ["record-without-mount fixed"]);
    assert.deepEqual(await check(true), []);
    assert.ok(!existsSync(mountPoint));
  });

  for (const stage of ["mounting", "unmounting"] as const)
    it(`a volume whose ${stage} was not ended is given back`, async () => {
      await host.volumes.mount("web", {}, {});
      await phase(stage);
      const other = { giveBack: () => undefined };
      const [left] = await check(true, other);
      assert.equal(left?.state, "left");
      assert.match(left.next, /libstorage --host test host check --fix/);
      assert.deepEqual(brief(await check(true)), ["unfinished-mount fixed"]);
      assert.deepEqual(await host.mounts(), []);
      assert.deepEqual([...(await host.volumes.host.ownVolumes({}))], []);
    });

  it("a volume that is being worked on is not looked at", async () => {
    await host.volumes.mount("web", {}, {});
    await phase("unmounting");
    const lock = join(records, `${volumeID}.lock`);
    let release = (): void => {};
    const released = new Promise<void>((resolve) => (release = resolve));
    let begun = (): void => {};
    const held = new Promise<void>((resolve) => (begun = resolve));
    const limits = { waitMs: 1_000, signal: AbortSignal.timeout(20_000) };
    const holder = withHostLock(runCommand, lock, limits, () => {
      begun();
      return released;
    });
    try {
      await held;
      assert.deepEqual(await check(true), []);
    } finally {
      release();
      await holder;
    }
    assert.deepEqual(brief(await check(true)), ["unfinished-mount fixed"]);
  });

  it("a mount that is nobody's is shown and stays; an empty folder goes", async () => {
    const at = join(lib, "volumes/foreign");
    await mkdir(at, { recursive: true });
    spawnSync("mount", ["-t", "tmpfs", "none", at]);
    const empty = join(lib, "volumes/empty");
    const full = join(lib, "volumes/full/precious");
    await mkdir(empty);
    await mkdir(full, { recursive: true });
    assert.deepEqual(brief(await check(true)), ["mount-without-record left", "empty-folder fixed"]);
    assert.deepEqual(await host.mounts(), [at]);
    assert.ok(existsSync(full));
    assert.ok(!existsSync(empty));
  });

  it("a broken record is shown and stays", async () => {
    await mkdir(records, { recursive: true });
    const file = join(records, "x.json");
    await writeFile(file, "{");
    const [found, ...others] = await check(true);
    assert.deepEqual(others, []);
    assert.equal(found?.kind, "broken-record");
    assert.equal(found.state, "left");
    assert.ok(existsSync(file));
  });

  it("files of killed processes go when they are old", async () => {
    await mkdir(records, { recursive: true });
    await mkdir(join(host.folder, "iscsi"));
    const files = [
      join(records, "a.json.tmp"),
      join(records, "a.lock"),
      join(host.folder, "iscsi/.libstorage-record-17"),
    ];
    for (const file of files) await writeFile(file, "");
    assert.deepEqual(await check(true), []);
    for (const file of files) await utimes(file, LONG_AGO, LONG_AGO);
    await writeFile(join(host.folder, "iscsi/initiatorname.iscsi"), "");
    assert.deepEqual(brief(await check(true)), [
      "temporary-file fixed",
      "temporary-file fixed",
      "lock-file fixed",
    ]);
    for (const file of files) assert.ok(!existsSync(file), file);
    assert.ok(existsSync(join(host.folder, "iscsi/initiatorname.iscsi")));
  });

  it("a connection is left while its server does not say whether it may be", async () => {
    const folder = join(lib, "connections/test/disks");
    await mkdir(folder, { recursive: true });
    const file = join(folder, "v.json");
    const fields = {
      exporter: "iscsi-lio",
      iqn: "iqn.2026-01.x:y",
      portals: "10.0.0.1:3260",
      lun: "1",
      wwid: "3600",
    };
    const device = "/dev/disk/by-id/wwn-0x600";
    const record = { version: 1, volumeID: "v", driver: "lvm-iscsi", device, fields };
    await writeFile(file, JSON.stringify(record));
    const unknown = async () => ({ known: false, why: "no server" }) as const;
    const [found] = await check(true, { attachments: unknown });
    assert.equal(found?.state, "left");
    assert.match(found.about, /no server/);
    const has = async () => ({ known: true, volumeIDs: new Set(["v"]) }) as const;
    assert.deepEqual(await check(true, { attachments: has }), []);
    const calls: string[] = [];
    const tools: Exec = async (name, args, options) => {
      calls.push([name, ...args].join(" "));
      if (name === "iscsiadm") return { stdout: "", stderr: "" };
      return runCommand(name, args, options);
    };
    const none = async () => ({ known: true, volumeIDs: new Set<string>() }) as const;
    const [fixed] = await check(true, { attachments: none }, tools);
    assert.equal(fixed?.state, "fixed", fixed?.next);
    assert.ok(!existsSync(file));
    assert.ok(
      calls.some((line) => /iscsiadm .*--op delete/.test(line)),
      calls.join("\n"),
    );
    assert.ok(!calls.some((line) => /--logout/.test(line)), "there is no session to end");
  });

  it("is a command with a table, JSON and exit codes", async () => {
    const program = new URL("../../../packages/client/bin/libstorage.mjs", import.meta.url)
      .pathname;
    const env = { LIBSTORAGE_HOME: host.folder, LIBSTORAGE_HOST: server.host };
    const clean = await run(program, ["host", "check"], env);
    assert.equal(clean.code, 0, clean.stderr);
    await mkdir(join(lib, "volumes/empty"), { recursive: true });
    const found = await run(program, ["host", "check", "--json"], env);
    assert.equal(found.code, 1);
    const { findings } = JSON.parse(found.stdout) as { findings: Finding[] };
    assert.deepEqual(brief(findings), ["empty-folder found"]);
    const fixed = await run(program, ["host", "check", "--fix"], env);
    assert.equal(fixed.code, 0, fixed.stderr);
    assert.match(fixed.stdout, /^STATE.*\nfixed +empty-folder/);
  });
});
