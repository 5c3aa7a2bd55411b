/** What is left of a file system that was being made: cleared where it is ours for certain, and nowhere else. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { constants, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import type { InstanceID, Volume, VolumeService } from "@libstorage/model";
import { StorageError } from "@libstorage/model";
import { runCommand } from "@libstorage/client/host";
import type { Exec } from "@libstorage/client/host";
import { makeFolder, startServer } from "../../client/fixture.js";
import type { TestServer } from "../../client/fixture.js";
import { cannotMount } from "../../client/host-fixture.js";
import { toolsMissing } from "../../drivers/image-place.js";
import { scratchParent } from "../../faults/folders.js";
import { LOOP_DRIVER, loopDriver, loopServiceAt, loopServiceMissing } from "../csi/loop-service.js";
import { leaveHalf } from "../half-made.js";
import { openPlugin, unmountBelow } from "./plugin-fixture.js";
import type { TestPlugin } from "./plugin-fixture.js";

const SERVICE = "devices";
const OTHER: InstanceID = { id: "another-host", driver: LOOP_DRIVER, service: "" };

function run(tool: string, ...args: readonly string[]): void {
  const { status, stderr } = spawnSync(tool, args, { encoding: "utf8" });
  assert.equal(status, 0, `${tool}: ${stderr}`);
}

function cannotHave(fsType: string): string | false {
  if (toolsMissing(`mkfs.${fsType}`) !== false) return `mkfs.${fsType} is not installed`;
  const known = readFileSync("/proc/filesystems", "utf8").split(/\s+/).includes(fsType);
  const isLoaded = known || spawnSync("modprobe", [fsType]).status === 0;
  return isLoaded ? false : `this kernel has no ${fsType}`;
}

describe("half a file system", { skip: cannotMount() || loopServiceMissing() }, () => {
  const loops = loopDriver();
  let images: string;
  let server: TestServer;
  let folder: string;
  let plugin: TestPlugin;
  /** Commands that fail; mkfs in its middle. */
  let failing: readonly string[];

  before(async () => {
    images = mkdtempSync(join(scratchParent(), "docker-remains-"));
    server = await startServer({
      drivers: { [LOOP_DRIVER]: loops.module },
      config: loopServiceAt(images),
    });
  });
  after(async () => {
    await server.close();
    rmSync(images, { recursive: true, force: true });
  });
  beforeEach(async () => {
    folder = await makeFolder();
    failing = [];
    plugin = await openOne();
  });
  afterEach(async () => {
    await plugin.close();
    await unmountBelow(folder);
    for (const { id } of await volumes())
      await calls().volumeRemove({ service: SERVICE, volumeID: id, force: true }, undefined, {});
    rmSync(folder, { recursive: true, force: true });
  });

  const exec: Exec = async (file, args, options) => {
    const tool = failing.find((one) => file.startsWith(one));
    if (tool === undefined) return runCommand(file, args, options);
    if (tool === "mkfs.") {
      await runCommand(file, args, options);
      await leaveHalf(file, args.at(-1) ?? "");
    }
    throw new StorageError("unavailable", `planned: ${file}`);
  };
  /** A service all of whose volumes have several holders. */
  const shared = (service: VolumeService): VolumeService => ({
    ...service,
    serviceInspect: async (...args) => ({
      ...(await service.serviceInspect(...args)),
      shareable: true,
    }),
  });
  const openOne = (wrapService?: typeof shared): Promise<TestPlugin> =>
    openPlugin({
      ...(wrapService !== undefined && { wrapService }),
      host: server.host,
      folder,
      service: SERVICE,
      exec,
      places: loops.devices().places,
      settings: { "docker.serverWait": "0" },
    });
  const calls = () => server.app.service;
  const volumes = async (): Promise<readonly Volume[]> =>
    Object.values(
      await calls().volumesByService({ service: SERVICE, attachments: 1 }, undefined, {}),
    );
  const only = async (): Promise<Volume> => {
    const [volume] = await volumes();
    assert.ok(volume);
    return volume;
  };
  const holderOf = ({ attachments = [] }: Volume): InstanceID => {
    const [own] = attachments;
    assert.ok(own?.instanceID, "it is attached");
    return own.instanceID;
  };
  const mount = async (): Promise<string> =>
    String((await plugin.ok("Mount", { Name: "v", ID: "c" }))["Mountpoint"]);
  const attach = async (volumeID: string, holder: InstanceID): Promise<unknown> =>
    calls().volumeAttach(
      { service: SERVICE, volumeID },
      { opts: { "holder.token": "of another turn" } },
      { instanceIDs: [holder] },
    );
  const detach = async (volumeID: string, holder: InstanceID): Promise<unknown> =>
    calls().volumeDetach({ service: SERVICE, volumeID }, {}, { instanceIDs: [holder] });

  /** As a plugin leaves it that was killed in the middle: half a file system, the record, the attachment. */
  const leave = async (fs = "ext4"): Promise<Volume> => {
    await plugin.ok("Create", { Name: "v", Opts: { size: "1", fs } });
    failing = ["mkfs.", "wipefs"];
    assert.match(await plugin.err("Mount", { Name: "v", ID: "c" }), /planned: .*not be undone/);
    failing = [];
    const volume = await only();
    holderOf(volume);
    return volume;
  };

  for (const fsType of ["ext4", "xfs", "btrfs"])
    it(`of ${fsType} is cleared, and made whole`, { skip: cannotHave(fsType) }, async () => {
      await leave(fsType);
      writeFileSync(join(await mount(), "f"), "first");
      await plugin.ok("Unmount", { Name: "v", ID: "c" });
      assert.equal(readFileSync(join(await mount(), "f"), "utf8"), "first");
      await plugin.ok("Unmount", { Name: "v", ID: "c" });
    });

  it("is cleared at once where mkfs alone failed, and the volume is given back", async () => {
    await plugin.ok("Create", { Name: "v", Opts: { size: "1" } });
    failing = ["mkfs."];
    const error = await plugin.err("Mount", { Name: "v", ID: "c" });
    assert.match(error, /planned/);
    assert.doesNotMatch(error, /undone/);
    assert.deepEqual((await only()).attachments ?? [], []);
    failing = [];
    await mount();
    await plugin.ok("Unmount", { Name: "v", ID: "c" });
  });

  it("is cleared before the volume is given back, by an unmount and by a plugin that starts", async () => {
    const { id } = await leave();
    await plugin.ok("Unmount", { Name: "v", ID: "c" });
    assert.deepEqual((await only()).attachments ?? [], []);
    assert.equal(spawnSync("cmp", ["-n", "1M", loops.devices().device(id), "/dev/zero"]).status, 0);
    await plugin.ok("Remove", { Name: "v" });
    const { id: next } = await leave();
    await plugin.close();
    plugin = await openOne();
    await mount();
    await plugin.ok("Unmount", { Name: "v", ID: "c" });
    assert.notEqual(next, id);
  });

  for (const isBack of [false, true])
    it(`is left alone when another host has had the volume${isBack ? ", and it came back" : ""}`, async () => {
      const { id, ...volume } = await leave();
      const own = holderOf({ id, ...volume });
      await detach(id, own);
      await attach(id, OTHER);
      const handle = await open(loops.devices().device(id), "r+");
      await handle.write(Buffer.from("the other's"), 0, 11, 8192);
      await handle.sync();
      await handle.close();
      await detach(id, OTHER);
      if (isBack) await attach(id, own);
      for (let times = 0; times < 2; times += 1)
        assert.match(
          await plugin.err("Mount", { Name: "v", ID: "c" }),
          /neither formatted nor mounted: .* data in its first MiB/,
        );
      const found = Buffer.alloc(11);
      const reader = await open(loops.devices().device(id), "r");
      await reader.read(found, 0, 11, 8192);
      await reader.close();
      assert.equal(found.toString(), "the other's");
    });

  for (const by of ["volume", "service"])
    it(`is left alone where other hosts may come and go, by the ${by}`, async () => {
      const isByService = by === "service";
      if (isByService) {
        await plugin.close();
        plugin = await openOne(shared);
      }
      const Opts = { size: "1", ...(!isByService && { share: "true" }) };
      await plugin.ok("Create", { Name: "v", Opts });
      failing = ["mkfs."];
      assert.match(await plugin.err("Mount", { Name: "v", ID: "c" }), /planned/);
      failing = [];
      assert.match(JSON.stringify(plugin.log), /a part of a file system .* is not cleared/);
      assert.match(
        await plugin.err("Mount", { Name: "v", ID: "c" }),
        /neither formatted nor mounted: .* data in its first MiB/,
      );
    });

  it("is not the file system that another host made with the same label", async () => {
    const { id } = await leave();
    const label = `ls-${id.replaceAll(/[^A-Za-z0-9]/g, "").slice(-12)}`;
    const device = loops.devices().device(id);
    run("mkfs.ext4", "-q", "-F", "-L", label, device);
    const { stdout: before } = spawnSync("blkid", ["-p", "-s", "UUID", device]);
    await mount();
    await plugin.ok("Unmount", { Name: "v", ID: "c" });
    assert.deepEqual(spawnSync("blkid", ["-p", "-s", "UUID", device]).stdout, before);
  });

  it("is not what somebody has made there by hand since", async () => {
    const { id } = await leave();
    const device = loops.devices().device(id);
    run("mkfs.ext4", "-q", "-F", "-L", "by-hand", device);
    const at = await makeFolder();
    run("mount", device, at);
    mkdirSync(join(at, "data"));
    writeFileSync(join(at, "data/f"), "by hand");
    assert.match(await plugin.err("Mount", { Name: "v", ID: "c" }), /is mounted at .* already/);
    run("umount", at);
    rmSync(at, { recursive: true });
    assert.equal(readFileSync(join(await mount(), "f"), "utf8"), "by hand");
    await plugin.ok("Unmount", { Name: "v", ID: "c" });
  });

  it("waits for a mkfs that goes on without the plugin that began it", async () => {
    const { id } = await leave();
    // As mkfs has it.
    const alone = constants.O_RDWR | constants.O_EXCL;
    const handle = await open(loops.devices().device(id), alone);
    const mounted = mount();
    await sleep(300);
    await handle.write(Buffer.from("the last of it"), 0, 14, 4096);
    await handle.close();
    await mounted;
    await plugin.ok("Unmount", { Name: "v", ID: "c" });
  });
});
