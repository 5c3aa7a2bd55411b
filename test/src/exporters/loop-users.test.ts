/** A loop device over a file that FUSE shows, and a file system above that: users whom a removal must see. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import type { Export } from "@libstorage/model";
import { toolsMissing } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";
import { loopMissing } from "../loop.js";
import { until } from "./client.js";
import { DoorHost } from "./door-host.js";
import { run } from "./nbd-client.js";

const skip =
  toolsMissing("qemu-img", "qemu-storage-daemon", "losetup", "mkfs.ext4") ||
  loopMissing({ type: "ext4", sizeMiB: 16 }) ||
  (existsSync("/dev/fuse") ? false : "this kernel has no FUSE");

describe("a loop device over a file", { skip }, () => {
  const scratch = makeScratch("lu");
  const mountPoint = join(scratch.path, "mnt");
  let host: DoorHost;
  let door: Export;
  let device = "";
  let isMounted = false;

  before(async () => {
    mkdirSync(mountPoint);
    host = await DoorHost.open(scratch.path);
  });
  beforeEach(async () => {
    door = await host.add({ volumeID: await host.volume(), type: "fuse", id: "f", writable: true });
    device = (await run("losetup", "--find", "--show", "--", door.deviceName)).trim();
  });
  afterEach(async () => {
    if (isMounted) await unmount();
    if (device !== "") await detach();
    await host.clear();
  });
  after(async () => {
    await host.close();
    await scratch.remove();
  });

  async function mount(): Promise<void> {
    await run("mkfs.ext4", "-q", device);
    await run("mount", device, mountPoint);
    isMounted = true;
  }
  async function unmount(): Promise<void> {
    await run("umount", mountPoint);
    isMounted = false;
  }
  async function detach(): Promise<void> {
    const name = device;
    device = "";
    await run("losetup", "--detach", name);
    // It is gone when its last user is.
    const backing = `/sys/block/${name.slice("/dev/".length)}/loop/backing_file`;
    await until(`${name} is free`, () => !existsSync(backing));
  }
  const refusal = () => ({
    code: "failed-precondition",
    message: new RegExp(`the loop device ${device}\\b`),
  });

  it("is a user: safe is refused and names it, until it is gone", async () => {
    await run("dd", "if=/dev/urandom", `of=${device}`, "bs=1M", "count=2", "oflag=direct");
    await assert.rejects(host.remove("f"), refusal());
    const [listed] = await host.exports();
    assert.deepEqual(
      listed?.sessions.map(({ peer }) => peer),
      [`the loop device ${device}`],
    );
    await run("dd", `if=${device}`, "of=/dev/null", "bs=1M", "count=2", "iflag=direct");
    await detach();
    assert.equal(await host.remove("f"), null);
    assert.equal(existsSync(door.deviceName), false);
  });

  it("with a file system mounted from it: safe is refused, and its files stay whole", async () => {
    await mount();
    const file = join(mountPoint, "file");
    writeFileSync(file, "some data", { flush: true });
    await assert.rejects(host.remove("f"), refusal());
    await run("sync", "-f", mountPoint);
    await run("sh", "-c", "echo 1 > /proc/sys/vm/drop_caches");
    assert.equal(readFileSync(file, "utf8"), "some data");
    await unmount();
    await assert.rejects(host.remove("f"), refusal());
    await detach();
    assert.equal(await host.remove("f"), null);
  });

  for (const mode of ["hide", "soft"] as const)
    it(`keeps a file that was removed with mode ${mode} until it is gone`, async () => {
      const isWhole = mode === "hide";
      await run("dd", "if=/dev/urandom", `of=${device}`, "bs=1M", "count=2", "oflag=direct");
      const left = await host.remove("f", mode);
      assert.equal(left?.state, isWhole ? "hidden" : "shutdown");
      assert.equal(existsSync(door.deviceName), false, "nobody else finds it");
      // Where nothing was written: that would come out of this host's memory, which nobody refuses.
      const at = ["skip=512", "bs=1M", "count=2", "iflag=direct"];
      const read = run("dd", `if=${device}`, "of=/dev/null", ...at);
      if (isWhole) await read;
      else await assert.rejects(read, /error/);
      // Those that nobody uses are looked for all the time.
      await host.close();
      host = await DoorHost.open(scratch.path);
      assert.deepEqual(
        (await host.exports()).map(({ id }) => id),
        ["f"],
      );
      await detach();
      await until("it is gone", async () => (await host.exports()).length === 0);
    });
});
