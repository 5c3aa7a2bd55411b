/** Raw image volumes on the server's own host: loop devices, made and taken away by the client's executor. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { openExecutor, runCommand } from "@libstorage/client/host";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import type { VolumeRecord } from "@libstorage/server";
import { Fixture, attachmentOf, contextOf } from "../conformance/fixture.js";
import { imageHarness, imagePlace, toolsMissing } from "../drivers/image-place.js";
import { loopMissing } from "../loop.js";

type Executor = NonNullable<ReturnType<typeof openExecutor>>;
type Attached = Parameters<NonNullable<Executor["connects"]>>[0];

const MIB = 1024 ** 2;
const skip =
  toolsMissing("qemu-img", "qemu-io", "losetup", "mkfs.xfs") ||
  loopMissing({ type: "xfs", sizeMiB: 512 });

describe("image volumes on this host", { skip }, () => {
  const limits = () => ({ timeoutMs: 30_000, signal: AbortSignal.timeout(60_000) });

  /** Not in memory: a tmpfs has no direct I/O on older kernels. */
  async function onFixture(
    act: (fixture: Fixture, executor: Executor, lib: string) => Promise<void>,
  ) {
    const lib = await mkdtemp(join(tmpdir(), "image-host-"));
    const place = () => imagePlace({ format: "raw" }, lib);
    const fixture = await Fixture.open({ ...imageHarness({ format: "raw" }, true), place });
    const executor = openExecutor("image", {
      config: new ScopedConfig([new ConfigTree({})]),
      libFolder: lib,
      hostName: hostname(),
      isRoot: true,
      exec: runCommand,
    });
    assert.ok(executor !== undefined);
    try {
      await act(fixture, executor, lib);
    } finally {
      // What a failed test left.
      spawnSync("umount", ["--quiet", join(lib, "mnt")]);
      for (const { source } of (await fixture.list()).volumes)
        for (const device of source.kind === "file" ? loops(source.path) : [])
          spawnSync("losetup", ["--detach", device]);
      await fixture.driver.close();
      await rm(lib, { recursive: true });
    }
  }

  async function attach(fixture: Fixture, volume: VolumeRecord): Promise<Attached> {
    const { fields: _none, ...attachment } = attachmentOf("here", { deviceName: "" });
    const held = await fixture.driver.volumeAttach(volume, attachment, contextOf());
    const [own] = held.attachments;
    return { volumeID: volume.id, device: own?.deviceName ?? "", fields: own?.fields ?? {} };
  }

  function loops(path: string): string[] {
    const { stdout } = spawnSync(
      "losetup",
      ["--noheadings", "--output=NAME", "--associated", path],
      {
        encoding: "utf8",
      },
    );
    return stdout.split("\n").filter((line) => line !== "");
  }

  it("a raw volume appears as one loop device with direct I/O, is mounted, grows and goes", () =>
    onFixture(async (fixture, executor, lib) => {
      const volume = await fixture.create(0, { sizeBytes: 320 * MIB });
      const attached = await attach(fixture, volume);
      assert.equal(executor.connects?.(attached), true);
      await executor.connect?.(attached, limits());
      await executor.connect?.(attached, limits());
      const [device = "", ...more] = loops(attached.device);
      assert.deepEqual(more, [], "doing it again makes no second one");
      const { stdout } = spawnSync("losetup", ["--noheadings", "--output=DIO", device], {
        encoding: "utf8",
      });
      assert.equal(stdout.trim(), "1");
      const mountPoint = join(lib, "mnt");
      const { signal } = limits();
      const fileSystem = { type: "xfs", isAsked: true };
      const request = { ...attached, mountPoint, fileSystem, signal };
      const mounted = await executor.mount?.(request);
      assert.equal(mounted?.wasThere, false);
      spawnSync("sh", ["-c", `echo hello > ${mountPoint}/file && sync -f ${mountPoint}`]);
      assert.equal(await executor.isMounted?.(attached.device, mountPoint), true);
      assert.deepEqual(await executor.mountPointsOf?.(attached.device), [mountPoint]);
      await assert.rejects(executor.disconnect?.(attached, limits()) ?? Promise.resolve(), {
        code: "failed-precondition",
        message: /mount .* uses \/dev\/loop/,
      });
      await assert.rejects(fixture.driver.volumeRemove(volume.id, contextOf()), {
        message: /loop device/,
      });
      await fixture.driver.volumeExpand?.(volume, 512 * MIB, contextOf());
      assert.match((await executor.expand?.(attached, mountPoint, limits())) ?? "", /fitted/);
      assert.equal(readFileSync(join(mountPoint, "file"), "utf8"), "hello\n");
      await executor.unmount?.({ ...attached, mountPoint, removeFolder: true, signal });
      await executor.disconnect?.(attached, limits());
      await executor.disconnect?.(attached, limits());
      assert.deepEqual(loops(attached.device), []);
      await fixture.driver.volumeRemove(volume.id, contextOf());
    }));

  it("a qcow2 is refused with what to do, and nothing is made", () =>
    onFixture(async (fixture, executor) => {
      const volume = await fixture.create(0, { fields: { format: "qcow2" }, sizeBytes: MIB });
      const attached = await attach(fixture, volume);
      await assert.rejects(executor.connect?.(attached, limits()) ?? Promise.resolve(), {
        code: "failed-precondition",
        message: /qcow2 image.*convert it to raw/,
      });
      assert.deepEqual(loops(attached.device), []);
    }));
});
