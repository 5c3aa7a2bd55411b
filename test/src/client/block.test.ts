/**
 * The block executor over a loop device that stands in for a logical volume: what /dev and /sys say of it is laid
 * out below a folder of the test. A fault meets every command of a mount and an unmount in turn.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, statfsSync, writeFileSync } from "node:fs";
import { mkdir, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import { CommandError, openExecutor, runCommand } from "@libstorage/client/host";
import type { Exec, Executor, Mounted } from "@libstorage/client/host";
import { makeFolder } from "./fixture.js";
import { cannotMount } from "./host-fixture.js";
import { devicesMissing, makeDevice } from "./loop-device.js";
import type { LoopDevice } from "./loop-device.js";

const skip = cannotMount() || devicesMissing(["mkfs.ext4", "blkid", "wipefs"]);
const UUID = "LVM-AbCdEf0123";
const device = `/dev/disk/by-id/dm-uuid-${UUID}`;
const { signal } = new AbortController();
const MIB = 1024 ** 2;

describe("block volumes of this host", { skip }, () => {
  let folder: string;
  let loop: LoopDevice;
  let link: string;
  let uuidFile: string;
  let point: string;
  let commands: string[];
  /** What happens to the n-th command, from 0. */
  let fault: { readonly at: number; readonly kind: "fails" | "is done unheard" } | undefined;
  let executor: Executor;

  const exec: Exec = async (file, args, options) => {
    const line = [file, ...args].join(" ");
    const isIt = commands.length === fault?.at;
    commands.push(line);
    const broken = new CommandError(file, args, { exitCode: 77, stderr: "a fault" }, undefined);
    if (isIt && fault?.kind === "fails") throw broken;
    if (!isIt) return runCommand(file, args, options);
    await runCommand(file, args, options).catch(() => {});
    throw broken;
  };

  beforeEach(async () => {
    folder = await makeFolder();
    loop = makeDevice(320);
    point = join(folder, "v");
    link = join(folder, "dev/disk/by-id", basename(device));
    uuidFile = join(folder, "sys/class/block", basename(loop.path), "dm/uuid");
    for (const path of [link, uuidFile]) await mkdir(dirname(path), { recursive: true });
    await symlink(loop.path, link);
    await writeFile(uuidFile, `${UUID}\n`);
    await symlink(loop.path, join(dirname(link), "wwn-0xABC-part1"));
    await symlink(loop.path, join(dirname(link), "ata-disk"));
    commands = [];
    fault = undefined;
    const opened = openExecutor("lvm-iscsi", {
      config: new ScopedConfig([new ConfigTree({})]),
      libFolder: folder,
      hostName: "here",
      isRoot: true,
      exec,
      places: { sys: join(folder, "sys"), dev: join(folder, "dev") },
    });
    assert.ok(opened);
    executor = opened;
  });
  afterEach(async () => {
    spawnSync("umount", [point]);
    loop.remove();
    await rm(folder, { recursive: true, force: true });
  });

  async function mount(type = "ext4"): Promise<Mounted> {
    const fileSystem = { type, isAsked: false };
    const mounted = await executor.mount?.({
      volumeID: "v",
      device,
      mountPoint: point,
      fileSystem,
      signal,
    });
    assert.ok(mounted);
    return mounted;
  }
  const unmount = async (source?: Mounted["source"]): Promise<void> =>
    executor.unmount?.({
      device,
      mountPoint: point,
      removeFolder: true,
      signal,
      ...(source !== undefined && { source }),
    });

  it("are found by links that name them, in lower case, and by nothing else", async () => {
    const { deviceMap } = await executor.localDevices("quick");
    assert.deepEqual(deviceMap, { "dm-uuid-lvm-abcdef0123": loop.path });
    assert.equal((await executor.instanceID()).id, "here");
  });

  it("are not touched when the device says that it is another, or is gone", async () => {
    await writeFile(uuidFile, "LVM-another\n");
    await assert.rejects(mount(), {
      code: "failed-precondition",
      message: /says it is LVM-another/,
    });
    await unlink(link);
    await assert.rejects(mount(), { code: "failed-precondition", message: /this host has no/ });
    const attached = { volumeID: "v", device: "/dev/sda", mountPoint: point, signal };
    await assert.rejects(
      executor.mount?.(attached) ?? Promise.resolve(),
      /names the volume itself/,
    );
    assert.deepEqual(commands, []);
  });

  for (const kind of ["fails", "is done unheard"] as const)
    it(`a mount of which each command ${kind} in turn is made by the next try`, async () => {
      await mount();
      const count = commands.length;
      assert.deepEqual(
        commands.map((line) => line.split(" ", 1)[0]),
        ["mkfs.ext4", "mount"],
      );
      await unmount();
      for (let at = 0; at < count; at += 1) {
        spawnSync("wipefs", ["-aq", loop.path]);
        spawnSync("dd", ["if=/dev/zero", `of=${loop.path}`, "bs=1M", "count=2", "status=none"]);
        commands = [];
        fault = { at, kind };
        const failed = await mount().then(
          () => undefined,
          (error: Error) => error,
        );
        const line = commands[at] ?? "";
        // Only fitting a file system to its device may fail without the mount.
        assert.equal(failed === undefined, line.startsWith("resize2fs"), line);
        fault = undefined;
        // What a half-made file system leaves is not taken for one, nor made anew.
        const second = await mount().catch((error: Error) => error);
        if (second instanceof Error)
          assert.match(second.message, /neither formatted nor mounted/, line);
        else {
          writeFileSync(join(point, "file"), "kept");
          await unmount();
          assert.ok(!existsSync(point), line);
        }
      }
    });

  it("an unmount that fails, or of which nobody hears, is made by the next try", async () => {
    for (const kind of ["fails", "is done unheard"] as const) {
      await mount();
      writeFileSync(join(point, "file"), kind);
      commands = [];
      fault = { at: 0, kind };
      await assert.rejects(unmount());
      fault = undefined;
      await unmount();
      assert.ok(!existsSync(point));
      await mount();
      assert.equal(readFileSync(join(point, "file"), "utf8"), kind);
      await unmount();
    }
  });

  it("stand, and are unmounted, when their link is gone; somebody else's mount is not", async () => {
    const { source } = await mount();
    await unlink(link);
    assert.equal(await executor.isMounted?.(device, point, source), true);
    assert.equal(await executor.isMounted?.(device, point), false);
    await assert.rejects(unmount(), { code: "failed-precondition", message: /left as it is/ });
    await unmount(source);
    assert.ok(!existsSync(point));
  });

  it("grow with their device while they are mounted", async () => {
    // Which, unlike ext4, may be grown by every root.
    await mount("xfs");
    const size = (): number => statfsSync(point).blocks * statfsSync(point).bsize;
    const before = size();
    loop.grow(640);
    const attached = { volumeID: "v", device, fields: {} };
    const limits = { signal, timeoutMs: 60_000 };
    assert.match((await executor.expand?.(attached, point, limits)) ?? "", /was fitted/);
    assert.ok(size() > before + 200 * MIB, `${before} to ${size()}`);
    await unmount();
    assert.equal(await executor.expand?.(attached, point, limits), "");
  });
});
