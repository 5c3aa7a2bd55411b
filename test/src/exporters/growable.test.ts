/** Files that their users make larger and smaller: nothing of the volume is lost but what was cut off, and it is noted. */
import assert from "node:assert/strict";
import { linkSync, renameSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import type { SnapshotRecord, StorageService } from "@libstorage/server";
import { imageSize } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";
import { DoorHost, GIB, SERVICE } from "./door-host.js";
import { CALLER, imageOf, liveMissing as skip } from "./live-client.js";
import { run } from "./nbd-client.js";

for (const mode of ["overlays", "inner"] as const)
  describe(`growable files, with snapshots as ${mode}`, { skip }, () => {
    const scratch = makeScratch(`g${mode[0]}`);
    let host: DoorHost;
    const open = async (): Promise<void> => {
      host = await DoorHost.open(scratch.path, { image: { snapshots: mode } });
    };
    const service = (): StorageService => host.storage.service(SERVICE);

    before(open);
    afterEach(async () => {
      await host.clear();
    });
    after(async () => {
      await host.close();
      await scratch.remove();
    });

    const snap = (volumeID: string): Promise<SnapshotRecord> =>
      service().volumeSnapshot(volumeID, { name: "s", fields: {} }, CALLER);

    const pathOf = (volumeID: string): string => imageOf(service(), volumeID);

    it("a file that may grow is written past its end: neither a snapshot nor a refusal loses that", async () => {
      const volumeID = await host.volume("qcow2");
      const door = await host.add({ volumeID, type: "fuse", writable: true, growable: true });
      const file = door.deviceName;
      const io = (...commands: string[]): Promise<unknown> =>
        run("qemu-io", "-f", "raw", ...commands.flatMap((one) => ["-c", one]), file);
      const past = "read -P 9 1025M 1M";
      const zeros = ["if=/dev/zero", `of=${file}`, "bs=1M", "seek=1025", "count=1"];
      await run("dd", ...zeros, "conv=notrunc,fsync", "status=none");
      await io("write -P 9 1025M 1M", "flush");
      const size = GIB + 2 * 1024 ** 2;
      assert.equal(imageSize(pathOf(volumeID)), size);
      await assert.rejects(service().volumeExpand(volumeID, 2 ** 52, CALLER), {
        code: "invalid-argument",
      });
      const snapshot = await snap(volumeID);
      assert.equal(snapshot.sizeBytes, size);
      await io(past);
      assert.equal(statSync(file).size, size);
      const request = { name: "from", fields: {} };
      const made = await service().volumeCreateFromSnapshot(snapshot.id, request, CALLER);
      const held = await run("qemu-io", "-f", "qcow2", "-c", past, pathOf(made.id));
      assert.match(held, /read 1048576/);
      await host.remove(door.id ?? "", "hard");
      assert.equal(service().volume(volumeID).sizeBytes, size);
      // A day on which it had not been noted.
      await run("qemu-img", "resize", "-q", "-f", "qcow2", pathOf(volumeID), `${size + 1024 ** 2}`);
      await assert.rejects(service().volumeExpand(volumeID, 2 ** 52, CALLER), {
        code: "invalid-argument",
      });
      assert.equal(imageSize(pathOf(volumeID)), size + 1024 ** 2);
      assert.match(await run("qemu-io", "-f", "qcow2", "-c", past, pathOf(volumeID)), /read 1/);
    });

    it("a file that has grown while an exchange of its image was cut short loses nothing by its end", async () => {
      const volumeID = await host.volume("qcow2");
      const door = await host.add({ volumeID, type: "fuse", writable: true, growable: true });
      const disk = pathOf(volumeID);
      const [layer, next] = ["1.qcow2", "next.qcow2"].map((name) => join(dirname(disk), name));
      assert.ok(layer !== undefined && next !== undefined);
      linkSync(disk, layer);
      const backing = ["-u", "-b", "1.qcow2", "-F", "qcow2"];
      await run("qemu-img", "create", "-q", "-f", "qcow2", ...backing, next, "1G");
      renameSync(next, disk);
      const io = (...commands: string[]): Promise<string> =>
        run("qemu-io", "-f", "raw", ...commands.flatMap((one) => ["-c", one]), door.deviceName);
      await io("truncate 1026M", "write -P 9 1025M 1M", "flush");
      const { id } = await snap(volumeID);
      assert.match(await io("read -P 9 1025M 1M"), /read 1048576/);
      await host.remove(door.id ?? "", "hard");
      const request = { name: "from", fields: {} };
      const made = await service().volumeCreateFromSnapshot(id, request, CALLER);
      for (const one of [volumeID, made.id])
        assert.match(
          await run("qemu-io", "-f", "qcow2", "-c", "read -P 9 1025M 1M", pathOf(one)),
          /read 1048576/,
        );
    });

    it("a file that may grow is truncated by its user, and the volume has the size that it has", async () => {
      const volumeID = await host.volume("qcow2");
      const door = await host.add({ volumeID, type: "fuse", writable: true, growable: true });
      await run("truncate", "--size=1M", door.deviceName);
      await host.close();
      await open();
      assert.equal(service().volume(volumeID).sizeBytes, 1024 ** 2, "noted at the next start");
      await host.remove(door.id ?? "", "hard");
      assert.equal(service().volume(volumeID).sizeBytes, 1024 ** 2);
      await service().volumeExpand(volumeID, GIB, CALLER);
      assert.equal(imageSize(pathOf(volumeID)), GIB);
    });

    it("a raw volume cannot be a file that may grow, and the refusal says why", async () => {
      const volumeID = await host.volume("raw");
      const asked = host.add({ volumeID, type: "fuse", writable: true, growable: true });
      await assert.rejects(asked, {
        code: "failed-precondition",
        message: /cannot be a file that may grow: it is a raw image/,
      });
      assert.deepEqual(await host.exports(), []);
    });
  });
