/** An image service with the nbd exporter under the core: who may have a volume, and what is refused meanwhile. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { GIB } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import { DRIVERS, EXPORTERS, SILENT, Storage, openVolumeService } from "@libstorage/server";
import type { Caller } from "@libstorage/server";
import * as v from "valibot";
import { toolsMissing } from "../drivers/image-place.js";
import { ended } from "../exporters/nbd-client.js";
import { makeScratch } from "../faults/folders.js";

const CALLER: Caller = { who: "tester", via: "test", tx: "00000000-0000-1000-8000-000000000000" };
const skip = toolsMissing("qemu-img", "qemu-storage-daemon", "nbdinfo");

function host(id: string): InstanceID {
  const metadata = {
    hostName: id,
    bootID: "00000000-0000-4000-8000-000000000000",
    addresses: ["127.0.0.1"],
  };
  return { id, driver: "image", service: "", metadata };
}

/** Not in one go: this process serves what the client asks for. */
async function canReach(uri: string): Promise<boolean> {
  const child = spawn("nbdinfo", [uri], { stdio: "ignore" });
  await once(child, "close");
  return child.exitCode === 0;
}

describe("an image service", { skip }, () => {
  const scratch = makeScratch("image-service");
  const folder = join(scratch.path, "n");
  const daemons = (): string[] =>
    readdirSync(folder).flatMap((name) =>
      readdirSync(join(folder, name)).map((one) => join(folder, name, one)),
    );
  let storage: Storage;

  const open = (): Promise<Storage> =>
    Storage.open({
      services: [
        {
          name: "disks",
          driver: DRIVERS.image,
          config: v.parse(DRIVERS.image.config, {
            root: join(scratch.path, "root"),
            format: "qcow2",
          }),
          exporter: {
            module: EXPORTERS.nbd,
            config: v.parse(EXPORTERS.nbd.config, {
              listen: "127.0.0.1:0",
              folder: join(scratch.path, "sockets"),
              daemonFolder: folder,
            }),
          },
          settings: { shareable: false, uniqueNames: false },
        },
      ],
      journalFolder: join(scratch.path, "journal"),
      libFolder: scratch.path,
      log: SILENT,
    });

  before(async () => {
    await mkdir(join(scratch.path, "journal"));
    storage = await open();
  });
  after(async () => {
    const service = storage.service("disks");
    for (const { id } of service.inventory.volumes.all())
      await service.volumeRemove(id, true, CALLER);
    await storage.close();
    assert.deepEqual(daemons(), [], "daemons are left");
    await scratch.remove();
  });

  const create = async (name: string): Promise<string> => {
    const { id } = await storage
      .service("disks")
      .volumeCreate({ name, sizeBytes: GIB, fields: {} }, CALLER);
    return id;
  };

  /** @returns where the holder finds it */
  const attach = async (id: string, to: string, force = false): Promise<string> => {
    const request = { to: host(to), deviceName: "", force };
    const { attachment } = await storage.service("disks").volumeAttach(id, request, CALLER);
    return `nbd://${attachment.fields?.["address"]}/${attachment.fields?.["export"]}`;
  };

  it("gives a volume to one host at a time, and force cuts the first off for good", async () => {
    const id = await create("one");
    const first = await attach(id, "host-b");
    assert.ok(await canReach(first));
    await assert.rejects(attach(id, "host-c"), { code: "failed-precondition", message: /host-b/ });
    const second = await attach(id, "host-c", true);
    assert.ok(await canReach(second));
    assert.ok(!(await canReach(first)), "the old name never opens again");
    await storage.service("disks").volumeDetach(id, host("host-c"), false, CALLER);
    assert.ok(!(await canReach(second)));
  });

  it("a held volume is not copied, converted, shrunk or removed, nor snapshotted by a copy, and says why", async () => {
    const service = storage.service("disks");
    const id = await create("held");
    const uri = await attach(id, "host-b");
    const held = { code: "failed-precondition", message: /host-b/ };
    await assert.rejects(service.volumeCopy(id, { name: "x", fields: {} }, CALLER), held);
    await assert.rejects(service.volumeSnapshot(id, { name: "x", fields: {} }, CALLER), held);
    await assert.rejects(service.volumeConvert(id, "raw", CALLER), held);
    await assert.rejects(
      service.volumeShrink(id, { sizeBytes: GIB / 2, discardData: true }, CALLER),
      held,
    );
    await assert.rejects(service.volumeRemove(id, false, CALLER), held);
    assert.ok(await canReach(uri), "and nothing has changed for who has it");
    await service.volumeRemove(id, true, CALLER);
    assert.ok(!(await canReach(uri)));
  });

  it("a held volume grows, and who has it sees so when it comes again", async () => {
    const service = storage.service("disks");
    assert.ok(service.abilities.includes("expandOnline"));
    const id = await create("growing");
    const uri = await attach(id, "host-b");
    assert.equal((await service.volumeExpand(id, 2 * GIB, CALLER)).sizeBytes, 2 * GIB);
    const { stdout } = await ended("nbdinfo", "--size", uri);
    assert.equal(Number(stdout), 2 * GIB);
    await service.volumeDetach(id, host("host-b"), false, CALLER);
    await service.volumeRemove(id, false, CALLER);
  });

  it("a server that starts again serves its holders, under the same names", async () => {
    const id = await create("kept");
    const uri = await attach(id, "host-b");
    await storage.close();
    assert.ok(!(await canReach(uri)), "nobody serves meanwhile");
    storage = await open();
    assert.deepEqual(storage.warnings, []);
    const [daemon = ""] = daemons();
    assert.ok(existsSync(join(daemon, "nbd.sock")));
    assert.equal(storage.service("disks").volume(id).attachments.length, 1);
    await storage.service("disks").volumeDetach(id, host("host-b"), false, CALLER);
    assert.deepEqual(daemons(), []);
  });

  it("images are checked, measured, converted and shrunk through the API's operations", async () => {
    const service = openVolumeService(storage);
    const params = { service: "disks", volumeID: await create("work") };
    assert.equal((await service.volumeCheck(params, {}, {})).status, "clean");
    const size = await service.volumeMeasure(params, { format: "raw" }, {});
    assert.equal(size.fullBytes, GIB);
    await service.volumeExpand(params, { size: 3 }, {});
    assert.equal((await service.volumeConvert(params, { format: "raw" }, {})).size, 3);
    assert.equal((await service.volumeShrink(params, { size: 2 }, {})).size, 2);
    const larger = service.volumeShrink(params, { size: 5 }, {});
    await assert.rejects(larger, { code: "invalid-argument", message: /expand it instead/ });
    const vmdk = service.volumeConvert(params, { format: "vmdk" }, {});
    await assert.rejects(vmdk, { code: "invalid-argument" });
    assert.equal((await service.volumeCheck(params, {}, {})).status, "unsupported");
  });

  it("a driver without images says so", async () => {
    const mock = await Storage.open({
      services: [
        {
          name: "m",
          driver: DRIVERS.mock,
          config: v.parse(DRIVERS.mock.config, {}),
          settings: { shareable: false, uniqueNames: false },
        },
      ],
      journalFolder: await made(join(scratch.path, "mock")),
      libFolder: scratch.path,
      log: SILENT,
    });
    const [volume] = mock.service("m").inventory.volumes.all();
    const check = mock.service("m").volumeCheck(volume?.id ?? "", false, CALLER);
    await assert.rejects(check, { code: "unimplemented", message: /check images/ });
    await mock.close();
  });
});

async function made(folder: string): Promise<string> {
  await mkdir(folder);
  return folder;
}
