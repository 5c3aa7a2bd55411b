/** A volume of another host on this one by NBD: the client's own executor against a real server. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { checkHost, openExecutor, runCommand } from "@libstorage/client/host";
import type { Attached, CheckOptions, Executor, ExecutorContext } from "@libstorage/client/host";
import { ScopedConfig } from "@libstorage/model";
import type { Caller } from "@libstorage/server";
import { toolsMissing } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";
import { loopMissing } from "../loop.js";
import { DoorHost, SERVICE } from "./door-host.js";
import { ended, run } from "./nbd-client.js";

const skip =
  toolsMissing("qemu-img", "qemu-storage-daemon", "losetup", "mkfs.ext4") ||
  loopMissing({ type: "ext4", sizeMiB: 16 }) ||
  (existsSync("/dev/fuse") ? false : "this kernel has no FUSE");

const GIB = 1024 ** 3;
const CALLER: Caller = { who: "tester", via: "test", tx: "00000000-0000-1000-8000-000000000000" };
/** Of no other test here. */
const LISTEN = "127.0.0.1:19431";

describe("a volume that comes by NBD", { skip }, () => {
  const scratch = makeScratch("na");
  const libFolder = join(scratch.path, "c");
  const mountPoint = join(scratch.path, "mnt");
  const context: ExecutorContext = {
    config: new ScopedConfig([]),
    libFolder,
    hostName: "here",
    isRoot: true,
    exec: runCommand,
  };
  let host: DoorHost;
  let executor: Executor;

  before(async () => {
    for (const path of [libFolder, mountPoint]) mkdirSync(path, { recursive: true });
    const opened = openExecutor("image", context);
    assert.ok(opened !== undefined);
    executor = opened;
    host = await openServer();
  });
  after(async () => {
    await host.removeVolumes();
    await host.close();
    await scratch.remove();
  });

  const openServer = (): Promise<DoorHost> =>
    DoorHost.open(scratch.path, { nbd: { listen: LISTEN }, exports: [], hasHosts: true });

  const attached = async (): Promise<Attached> => host.attachToHost(await host.volume("qcow2"));

  const limits = () => ({ timeoutMs: 120_000, signal: AbortSignal.timeout(120_000) });
  const connect = async (one: Attached) => executor.connect?.(one, limits());
  const disconnect = async (one: Attached) => executor.disconnect?.(one, limits());

  async function assertNothingLeft({ device }: Attached): Promise<void> {
    assert.equal(existsSync(device), false, "the link");
    assert.deepEqual(readdirSync(join(libFolder, "nbd-client")), [], "the daemon's folder");
    assert.doesNotMatch(readFileSync("/proc/self/mountinfo", "utf8"), new RegExp(libFolder));
    assert.doesNotMatch(await run("losetup", "--list"), new RegExp(libFolder));
  }

  function checkOptions(volumeIDs: readonly string[] = []): CheckOptions {
    return {
      executors: context,
      mountPath: join(scratch.path, "mounts"),
      signal: AbortSignal.timeout(120_000),
      attachments: async () => ({ known: true, volumeIDs: new Set(volumeIDs) }),
      giveBack: () => undefined,
    };
  }

  async function killDaemon(): Promise<void> {
    const folder = join(libFolder, "nbd-client");
    const [place = ""] = readdirSync(folder).filter((name) => !name.endsWith(".lock"));
    const pid = Number(readFileSync(join(folder, place, "pid"), "utf8"));
    process.kill(pid, "SIGKILL");
    while (existsSync(`/proc/${pid}`)) await sleep(20);
  }

  it("is a disk of the volume's size, and nothing of it is left when it goes", async () => {
    const one = await attached();
    await connect(one);
    await connect(one);
    assert.equal(Number(await run("blockdev", "--getsize64", one.device)), GIB);
    const { loopdevices } = JSON.parse(
      await run("losetup", "--list", "--json", "--output", "NAME,DIO,BACK-FILE"),
    ) as { loopdevices: { dio: boolean; "back-file": string }[] };
    const own = loopdevices.filter((loop) => loop["back-file"].startsWith(libFolder));
    assert.deepEqual(
      own.map(({ dio }) => dio),
      [true],
      "one device, with direct I/O",
    );
    await run("dd", "if=/dev/urandom", `of=${one.device}`, "bs=1M", "count=4", "conv=fsync");
    const written = await run("sh", "-c", `head -c 4M ${one.device} | sha256sum`);
    await disconnect(one);
    await disconnect(one);
    await assertNothingLeft(one);
    await connect(one);
    assert.equal(await run("sh", "-c", `head -c 4M ${one.device} | sha256sum`), written);
    await disconnect(one);
  });

  it("does not leave while a file system is mounted from it", async () => {
    const one = await attached();
    await connect(one);
    await run("mkfs.ext4", "-q", "-F", one.device);
    await run("mount", one.device, mountPoint);
    await assert.rejects(disconnect(one), {
      code: "failed-precondition",
      message: /cannot leave this host: the mount .* uses/,
    });
    await run("umount", mountPoint);
    await disconnect(one);
    await assertNothingLeft(one);
  });

  it("a server that restarts under a writer is a pause, and no I/O error", async () => {
    const one = await attached();
    await connect(one);
    await run("mkfs.ext4", "-q", "-F", one.device);
    await run("mount", one.device, mountPoint);
    const script = `for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=${mountPoint}/f$i bs=64k count=4 conv=fsync status=none || exit 7; sleep 0.3; done`;
    const writing = ended("sh", "-c", script);
    await sleep(500);
    await host.close();
    await sleep(1500);
    host = await openServer();
    const { status, stderr } = await writing;
    assert.equal(status, 0, stderr);
    await run("umount", mountPoint);
    await run("fsck.ext4", "-fn", one.device);
    await disconnect(one);
  });

  const noXfs =
    toolsMissing("mkfs.xfs", "xfs_growfs", "xfs_repair") ||
    loopMissing({ type: "xfs", sizeMiB: 320 });
  it(
    "grows while it is mounted and written, and the file system with it",
    { skip: noXfs },
    async () => {
      const service = host.storage.service(SERVICE);
      const one = await attached();
      const { volumeID } = one;
      await connect(one);
      await run("mkfs.xfs", "-q", "-f", one.device);
      await run("mount", one.device, mountPoint);
      for (const [gib, isWritten] of [
        [2, true],
        [3, false],
      ] as const) {
        const script = `for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=${mountPoint}/f$i bs=64k count=4 conv=fsync status=none || exit 7; sleep 0.2; done`;
        const writing = isWritten ? ended("sh", "-c", script) : undefined;
        await service.volumeExpand(volumeID, gib * GIB, CALLER);
        const said = await executor.expand?.(one, mountPoint, limits());
        assert.match(said ?? "", /the xfs at .* was fitted/);
        assert.equal(Number(await run("blockdev", "--getsize64", one.device)), gib * GIB);
        assert.ok(
          Number(await run("stat", "-f", "-c", "%b", mountPoint)) * 4096 > (gib - 0.3) * GIB,
        );
        if (writing !== undefined) assert.equal((await writing).status, 0);
      }
      await run("umount", mountPoint);
      await run("xfs_repair", "-n", one.device);
      await disconnect(one);
      await host.detachFromHost(volumeID);
    },
  );

  it("what a killed daemon leaves is found and cleared by a check of the host", async () => {
    const one = await attached();
    await connect(one);
    await killDaemon();
    const found = await checkHost(checkOptions(), false);
    const [leftover] = found.filter(({ kind }) => kind === "nbd-leftover");
    assert.equal(leftover?.state, "found");
    const fixed = await checkHost(checkOptions(), true);
    assert.ok(
      fixed.filter(({ kind }) => kind === "nbd-leftover").every(({ state }) => state === "fixed"),
    );
    await assertNothingLeft(one);
  });

  it("after its daemon was killed it is connected anew", async () => {
    const one = await attached();
    await connect(one);
    await killDaemon();
    await connect(one);
    assert.equal(Number(await run("blockdev", "--getsize64", one.device)), GIB);
    await disconnect(one);
    await assertNothingLeft(one);
  });

  it("another server's disk of the same name is another device, and one that looks the same is refused", async () => {
    const one = await attached();
    const elsewhere = await DoorHost.open(join(scratch.path, "2"), { exports: [], hasHosts: true });
    try {
      const twin = await elsewhere.attachToHost(await elsewhere.volume("qcow2"));
      const ownerOf = ({ device }: Attached) => /\.([\da-f]{10})\.1$/.exec(device)?.[1];
      assert.ok(ownerOf(one) !== undefined);
      assert.ok(ownerOf(twin) !== undefined);
      assert.notEqual(ownerOf(twin), ownerOf(one));
      await connect(one);
      await run("dd", "if=/dev/zero", `of=${one.device}`, "bs=1M", "count=1", "conv=fsync");
      // As a clone of the server, with its server ID, would name it.
      const fields = { ...one.fields, address: twin.fields["address"] ?? "" };
      const clone = { ...one, fields };
      const expand = async (of: Attached) => executor.expand?.(of, undefined, limits());
      for (const act of [connect, disconnect, expand])
        await assert.rejects(act(clone), {
          code: "failed-precondition",
          message: /is not touched: a disk of this name, which another server has, is connected/,
        });
      assert.equal(Number(await run("blockdev", "--getsize64", one.device)), GIB);
      await disconnect(one);
    } finally {
      await elsewhere.removeVolumes();
      await elsewhere.close();
    }
  });

  it("an export that is not for this host is refused in clear words, and nothing is left", async () => {
    const one = await attached();
    const wrong = {
      ...one,
      device: "/dev/disk/by-id/nbd-other",
      fields: { ...one.fields, export: "other" },
    };
    await assert.rejects(connect(wrong), {
      code: "permission-denied",
      message: /has no export other for this host/,
    });
    await assertNothingLeft(wrong);
  });
});
