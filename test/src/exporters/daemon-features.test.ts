/** A storage daemon or a host that can do less than others: what it lacks is refused with that reason. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { openExecutor, runCommand } from "@libstorage/client/host";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import type { ExportAddRequest } from "@libstorage/model";
import { makeScratch } from "../faults/folders.js";
import { CutDaemon, commandsOf, recordSchema, withoutOption, withoutType } from "./cut-daemon.js";
import type { QmpSchema } from "./cut-daemon.js";
import { DoorHost, through } from "./door-host.js";
import { liveMissing } from "./live-client.js";
import { run } from "./nbd-client.js";

const skip = liveMissing || (existsSync("/dev/fuse") ? false : "this kernel has no FUSE");

type Wish = Omit<ExportAddRequest, "volumeID">;

describe("a storage daemon that lacks something", { skip }, () => {
  const scratch = makeScratch("df");
  let cut: CutDaemon;
  let schema: QmpSchema;
  let host: DoorHost | undefined;
  let opened = 0;

  before(async () => {
    schema = await recordSchema(scratch.path);
    cut = new CutDaemon(scratch.path);
  });
  afterEach(async () => {
    cut.isWhole();
    await host?.clear();
    await host?.close();
    host = undefined;
  });
  after(async () => {
    cut.remove();
    await scratch.remove();
  });

  const open = async (more: object = {}): Promise<DoorHost> => {
    opened += 1;
    host = await DoorHost.open(join(scratch.path, String(opened)), more);
    return host;
  };
  const daemonFolders = (): readonly string[] => {
    const parent = join(scratch.path, String(opened), "l/qsd");
    return readdirSync(parent).flatMap((one) => readdirSync(join(parent, one)));
  };

  const OTHERS: Wish = { type: "nbd", transport: "unix", writable: true };
  const CUTS: readonly (readonly [
    what: string,
    cut: (schema: QmpSchema) => QmpSchema,
    wish: Wish,
    message: RegExp,
    stays: Wish,
  ])[] = [
    [
      "files",
      (all) => withoutType(all, "fuse"),
      { type: "fuse" },
      /cannot export as fuse: its schema \(query-qmp-schema\) has (?!.*fuse)[a-z, -]*nbd.* only; install a QEMU that was built with it/,
      OTHERS,
    ],
    [
      "vhost-user-blk",
      (all) => withoutType(all, "vhost-user-blk"),
      { type: "vhost-user-blk" },
      /cannot export as vhost-user-blk: its schema \(query-qmp-schema\) has (?!.*vhost)[a-z, -]*nbd.* only/,
      OTHERS,
    ],
    [
      "other users at a file",
      (all) => withoutOption(all, "fuse", "allow-other"),
      { type: "fuse", allowOther: "on" },
      /does not know allow-other of fuse exports, as its schema \(query-qmp-schema\) says; install a later QEMU/,
      { type: "fuse", writable: true },
    ],
    [
      "bitmaps",
      (all) => withoutOption(all, "nbd", "bitmaps"),
      { type: "nbd", bitmaps: ["b"] },
      /does not know bitmaps of nbd exports/,
      OTHERS,
    ],
    [
      "the allocation depth",
      (all) => withoutOption(all, "nbd", "allocation-depth"),
      { type: "nbd", allocationDepth: true },
      /does not know allocation-depth of nbd exports/,
      OTHERS,
    ],
  ];

  for (const [what, without, wish, message, stays] of CUTS)
    it(`${what} is refused as its schema lacks it, and the rest is as ever`, async () => {
      cut.says("schema", without(schema));
      const server = await open();
      const volumeID = await server.volume();
      await assert.rejects(server.add({ volumeID, ...wish }), { code: "unimplemented", message });
      assert.deepEqual(await server.exports(), []);
      assert.deepEqual(daemonFolders(), []);
      await through(await server.add({ volumeID, ...stays }), "write -P 3 0 4k", "read -P 3 0 4k");
    });

  it("with its whole schema has all of that", async () => {
    cut.says("schema", schema);
    const server = await open();
    for (const [what, , wish] of CUTS) {
      if (wish.bitmaps !== undefined) continue;
      const door = await server.add({ volumeID: await server.volume(), ...wish });
      assert.equal(door.exporter, wish.type, what);
    }
  });

  it("is no daemon of ours without the commands that every export needs", async () => {
    const commands = commandsOf(schema).filter(({ name }) => name !== "block-export-del");
    cut.says("schema", schema);
    cut.says("commands", commands);
    const server = await open();
    const volumeID = await server.volume();
    await assert.rejects(server.add({ volumeID, type: "nbd" }), {
      code: "failed-precondition",
      message: /this qemu-storage-daemon has no block-export-del; install QEMU 7 or later/,
    });
    assert.deepEqual(await server.exports(), []);
    assert.deepEqual(daemonFolders(), []);
  });

  it("on the host that attaches: built without FUSE is said, and nothing is left", async () => {
    const server = await open({ exports: [], hasHosts: true, nbd: { listen: "127.0.0.1:19437" } });
    const one = await server.attachToHost(await server.volume());
    const libFolder = join(scratch.path, "c");
    mkdirSync(libFolder);
    const context = {
      config: new ScopedConfig([new ConfigTree({ nbd: { client: "daemon" } })]),
      libFolder,
      hostName: "here",
      isRoot: true,
      exec: runCommand,
    };
    const executor = openExecutor("image", context);
    const limits = { timeoutMs: 60_000, signal: AbortSignal.timeout(60_000) };
    cut.says("type", "fuse");
    await assert.rejects(executor?.connect?.(one, limits) ?? Promise.resolve(), {
      code: "unimplemented",
      message:
        /the qemu-storage-daemon of this host was built without FUSE; install one with it, or load the kernel's nbd module/,
    });
    assert.equal(existsSync(one.device), false);
    assert.deepEqual(readdirSync(join(libFolder, "nbd-client")), []);
    cut.isWhole();
    await executor?.connect?.(one, limits);
    assert.equal(existsSync(one.device), true);
    await executor?.disconnect?.(one, limits);
    await server.removeVolumes();
  });

  it("does not matter where the kernel has no FUSE: files are refused, and nothing else", async () => {
    const child = fileURLToPath(new URL("no-fuse-child.js", import.meta.url));
    const nodes = ["null 3", "zero 5", "urandom 9"].map(
      (one) => `mknod -m 666 /dev/${one.replace(" ", " c 1 ")}`,
    );
    const commands = ["mount -t tmpfs none /dev", ...nodes, 'exec "$0" "$1"'].join(" && ");
    const text = await run(
      "unshare",
      "--mount",
      "--",
      "sh",
      "-c",
      commands,
      process.execPath,
      child,
    );
    const { refused, left, other } = JSON.parse(text) as {
      refused: { code: string; message: string };
      left: unknown[];
      other: string;
    };
    assert.equal(refused.code, "failed-precondition");
    assert.match(
      refused.message,
      /kernel has no FUSE for this server .*\/dev\/fuse.*; load the module fuse/,
    );
    assert.deepEqual([left, other], [[], "nbd"]);
  });
});
