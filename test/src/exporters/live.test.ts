/** Volumes that grow and get snapshots while they are exported and written: real daemons, real clients. */
import assert from "node:assert/strict";
import { existsSync, linkSync, readFileSync, readdirSync, renameSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import type { Export } from "@libstorage/model";
import type { SnapshotRecord, StorageService } from "@libstorage/server";
import { imageSize } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";
import { Client, until } from "./client.js";
import { DoorHost, GIB, SERVICE, through } from "./door-host.js";
import {
  CALLER,
  Writer,
  blocksOfVolume,
  fileTarget,
  imageOf,
  liveMissing as skip,
} from "./live-client.js";
import { ended, run } from "./nbd-client.js";

for (const mode of ["overlays", "inner"] as const)
  describe(`live, with snapshots as ${mode}`, { skip }, () => {
    const scratch = makeScratch(`l${mode[0]}`);
    let host: DoorHost;
    const open = async (): Promise<void> => {
      host = await DoorHost.open(scratch.path, { image: { snapshots: mode } });
    };
    const service = (): StorageService => host.storage.service(SERVICE);
    const daemonFolders = (): string[] => {
      const parent = join(scratch.path, "l/qsd");
      if (!existsSync(parent)) return [];
      return readdirSync(parent).flatMap((one) =>
        readdirSync(join(parent, one)).map((name) => join(parent, one, name)),
      );
    };
    /** The volumes' own, not those of files. */
    const pids = (): number[] =>
      daemonFolders()
        .filter((folder) => /\/(?:[\da-f]{16}|service)$/.test(folder))
        .map((folder) => Number(readFileSync(join(folder, "pid"), "utf8")));

    before(open);
    afterEach(async () => {
      await host.clear();
      assert.deepEqual(daemonFolders(), [], "daemons are left");
    });
    after(async () => {
      await host.close();
      await scratch.remove();
    });

    const snap = (volumeID: string, name = "s"): Promise<SnapshotRecord> =>
      service().volumeSnapshot(volumeID, { name, fields: {} }, CALLER);

    const pathOf = (volumeID: string): string => imageOf(service(), volumeID);
    const blocksOf = (volumeID: string): Promise<number> =>
      blocksOfVolume(service(), volumeID, scratch.path);

    /** The blocks of a snapshot, as a volume that is made from it has them. */
    const blocksAt = async ({ id }: SnapshotRecord): Promise<number> => {
      const request = { name: "from", fields: {} };
      const made = await service().volumeCreateFromSnapshot(id, request, CALLER);
      const blocks = await blocksOf(made.id);
      await service().volumeRemove(made.id, false, CALLER);
      return blocks;
    };

    /** Nothing but space may be lost by a daemon that was killed. */
    const checked = async (volumeID: string): Promise<void> => {
      const { status } = await ended("qemu-img", "check", "-f", "qcow2", pathOf(volumeID));
      assert.ok(status === 0 || status === 3, `qemu-img check: ${status}`);
    };

    const writing = async ({ deviceName }: Export): Promise<Writer> => {
      const writer = new Writer(await fileTarget(deviceName));
      await writer.goesOn();
      return writer;
    };

    for (const format of ["raw", "qcow2"] as const)
      it(`a ${format} volume grows while it is written`, async () => {
        const volumeID = await host.volume(format);
        const door = await host.add({ volumeID, type: "fuse", writable: true });
        const writer = await writing(door);
        assert.equal((await service().volumeExpand(volumeID, 2 * GIB, CALLER)).sizeBytes, 2 * GIB);
        await until("the file is larger", () => statSync(door.deviceName).size === 2 * GIB);
        await writer.goesOn();
        assert.equal((await service().volumeExpand(volumeID, 2 * GIB, CALLER)).sizeBytes, 2 * GIB);
        await writer.goesOn();
        await writer.end();
        const text = await run(
          "qemu-io",
          "-f",
          "raw",
          "-c",
          "write -P 9 1500M 1M",
          door.deviceName,
        );
        assert.match(text, /wrote 1048576/);
        await host.remove(door.id ?? "", "hard");
        assert.equal(await blocksOf(volumeID), writer.flushed);
        if (format === "qcow2") await checked(volumeID);
      });

    it("the daemon is killed right after, and what was flushed is there", async () => {
      const volumeID = await host.volume("qcow2");
      const door = await host.add({ volumeID, type: "fuse", writable: true });
      const writer = await writing(door);
      for (const act of [
        () => snap(volumeID),
        () => service().volumeExpand(volumeID, 2 * GIB, CALLER),
        () => snap(volumeID, "t"),
      ]) {
        await act();
        // A qcow2 loses what a killed daemon had answered and not flushed, and a later flush does not tell.
        await writer.pausedFor(() => {
          for (const pid of pids()) process.kill(pid, "SIGKILL");
        });
        // Without an error: it waits for the next daemon.
        await writer.goesOn();
      }
      await writer.end();
      await host.remove(door.id ?? "", "hard");
      assert.equal(await blocksOf(volumeID), writer.flushed);
      await checked(volumeID);
    });

    it("the server starts again in between, and finds the volume as it is", async () => {
      const volumeID = await host.volume("qcow2");
      const door = await host.add({ volumeID, type: "fuse", writable: true });
      const writer = await writing(door);
      const first = await snap(volumeID, "one");
      await host.close();
      await writer.goesOn();
      await open();
      assert.deepEqual(host.storage.warnings, []);
      const least = writer.flushed;
      const second = await snap(volumeID, "two");
      await service().volumeExpand(volumeID, 2 * GIB, CALLER);
      await writer.goesOn();
      // A door that is added now is one to the same image.
      await writer.end();
      const more = await host
        .add({ volumeID, type: "nbd", transport: "unix" })
        .catch(() => undefined);
      assert.equal(more, undefined, "one writer alone");
      await host.remove(door.id ?? "", "hard");
      assert.ok((await blocksAt(first)) < least);
      assert.ok((await blocksAt(second)) >= least);
      assert.equal(await blocksOf(volumeID), writer.flushed);
    });

    it("a client of NBD that would have to be cut off is a reason to wait with growing, and none for a snapshot", async () => {
      const volumeID = await host.volume("qcow2");
      for (const transport of ["tcp", "unix"] as const) {
        const door = await host.add({ volumeID, type: "nbd", transport, writable: true });
        const client = new Client(door.deviceName);
        await client.says("write -P 7 0 64k", /wrote 65536/);
        const grown = (): Promise<unknown> => service().volumeExpand(volumeID, 2 * GIB, CALLER);
        await assert.rejects(grown(), {
          code: "failed-precondition",
          message: new RegExp(`${volumeID} cannot be expanded now: a client is connected`),
        });
        assert.equal(service().volume(volumeID).sizeBytes, GIB);
        const snapshot = await snap(volumeID);
        await client.says("write -P 8 0 64k", /wrote 65536/);
        await client.says("read -P 8 0 64k", /read 65536/);
        await client.end();
        await host.remove(door.id ?? "", "hard");
        const made = await service().volumeCreateFromSnapshot(
          snapshot.id,
          { name: "from", fields: {} },
          CALLER,
        );
        const text = await run("qemu-io", "-f", "qcow2", "-c", "read -P 7 0 64k", pathOf(made.id));
        assert.match(text, /read 65536/);
      }
      const door = await host.add({ volumeID, type: "nbd", writable: true });
      await service().volumeExpand(volumeID, 2 * GIB, CALLER);
      assert.equal(Number(await run("nbdinfo", "--size", door.deviceName)), 2 * GIB);
    });

    it("two doors at once", async () => {
      const volumeID = await host.volume("qcow2", { opts: { format: "qcow2", shareable: true } });
      const file = await host.add({ volumeID, type: "fuse", writable: true });
      const nbd = await host.add({ volumeID, type: "nbd", transport: "unix", writable: true });
      const writer = await writing(file);
      const client = new Client(nbd.deviceName);
      await client.says("write -P 7 512M 64k", /wrote 65536/);
      await client.says("flush", /./);
      const least = writer.flushed;
      const snapshot = await snap(volumeID);
      await client.says("write -P 8 512M 64k", /wrote 65536/);
      await writer.goesOn();
      const made = await service().volumeCreateFromSnapshot(
        snapshot.id,
        { name: "from", fields: {} },
        CALLER,
      );
      const text = await run("qemu-io", "-f", "qcow2", "-c", "read -P 7 512M 64k", pathOf(made.id));
      assert.match(text, /read 65536/);
      assert.ok((await blocksOf(made.id)) >= least);
      await client.says("read -P 8 512M 64k", /read 65536/);
      await client.end();
      await service().volumeExpand(volumeID, 2 * GIB, CALLER);
      await writer.goesOn();
      assert.equal(Number(await run("nbdinfo", "--size", nbd.deviceName)), 2 * GIB);
      await writer.end();
      for (const { id = "" } of await host.exports()) await host.remove(id, "hard");
      // Without a door it is made as ever, whatever lies below the volume by now.
      const later = await snap(volumeID, "later");
      assert.equal(await blocksAt(later), writer.flushed);
      await service().snapshotRemove(snapshot.id, CALLER);
      assert.equal(await blocksAt(later), writer.flushed);
      await checked(volumeID);
    });

    it("a snapshot is used and removed while its volume is written", async () => {
      const volumeID = await host.volume("qcow2");
      const door = await host.add({ volumeID, type: "fuse", writable: true });
      const writer = await writing(door);
      const least = writer.flushed;
      const [one, two] = [await snap(volumeID, "one"), await snap(volumeID, "two")];
      assert.ok((await blocksAt(one)) >= least);
      await writer.goesOn();
      await service().snapshotRemove(one.id, CALLER);
      await writer.goesOn();
      assert.ok((await blocksAt(two)) >= least);
      await writer.end();
      await host.remove(door.id ?? "", "hard");
      assert.ok((await blocksAt(two)) >= least);
      assert.equal(await blocksOf(volumeID), writer.flushed);
      const text = await run("qemu-img", "info", pathOf(volumeID));
      assert.doesNotMatch(text, new RegExp(one.id));
    });

    it("an exchange of the image that was cut short is done again, and loses nothing", async () => {
      const volumeID = await host.volume("qcow2");
      const door = await host.add({ volumeID, type: "fuse", writable: true });
      const writer = await writing(door);
      // As a server leaves it that ends after the names are changed, and before the daemon hears of it.
      const disk = pathOf(volumeID);
      const [layer, next] = ["1.qcow2", "next.qcow2"].map((name) => join(dirname(disk), name));
      assert.ok(layer !== undefined && next !== undefined);
      linkSync(disk, layer);
      await run(
        "qemu-img",
        "create",
        "-u",
        "-f",
        "qcow2",
        "-b",
        "1.qcow2",
        "-F",
        "qcow2",
        next,
        "1G",
      );
      renameSync(next, disk);
      await writer.goesOn();
      await service().volumeExpand(volumeID, 2 * GIB, CALLER);
      await writer.goesOn();
      const least = writer.flushed;
      const snapshot = await snap(volumeID);
      await writer.goesOn();
      await writer.end();
      await host.remove(door.id ?? "", "hard");
      assert.equal(await blocksOf(volumeID), writer.flushed);
      assert.ok((await blocksAt(snapshot)) >= least);
      assert.match(await run("qemu-img", "info", disk), /virtual size: 2 GiB/);
      await checked(volumeID);
    });

    it("what the daemon refuses leaves nothing changed", async () => {
      const volumeID = await host.volume("qcow2");
      await run("qemu-img", "bitmap", "--add", pathOf(volumeID), "b0");
      const door = await host.add({ volumeID, type: "fuse", writable: true });
      const writer = await writing(door);
      const folder = dirname(pathOf(volumeID));
      const seen = () =>
        readdirSync(folder).map((name) => [name, statSync(join(folder, name)).ino]);
      const before = seen();
      await assert.rejects(service().volumeExpand(volumeID, 2 ** 52, CALLER), {
        code: "invalid-argument",
        message: new RegExp(`${volumeID} cannot be expanded now: it would be too large`),
      });
      assert.equal(service().volume(volumeID).sizeBytes, GIB);
      if (mode === "overlays")
        await assert.rejects(snap(volumeID), { message: /the dirty bitmap b0 of volume/ });
      assert.deepEqual(seen(), before);
      assert.equal(service().inventory.snapshots.all().length, 0);
      await writer.goesOn();
      assert.equal(statSync(door.deviceName).size, GIB);
      await writer.end();
      await host.remove(door.id ?? "", "hard");
      assert.equal(await blocksOf(volumeID), writer.flushed);
    });

    it("a raw volume is not snapshotted while it is exported, and says why", async () => {
      const volumeID = await host.volume("raw");
      const { id = "" } = await host.add({ volumeID, type: "fuse", writable: true });
      await assert.rejects(snap(volumeID), {
        code: "failed-precondition",
        message:
          /exported to .*: a volume of the format raw is copied as a file, and .* no one moment/,
      });
      await host.remove(id, "hard");
    });

    it("virtual machines and files that may grow are no hindrance", async () => {
      const volumeID = await host.volume("qcow2", { opts: { format: "qcow2", shareable: true } });
      await host.add({ volumeID, type: "vhost-user-blk", writable: true });
      const file = await host.add({ volumeID, type: "fuse", writable: true, growable: true });
      await service().volumeExpand(volumeID, 2 * GIB, CALLER);
      await until("the file is larger", () => statSync(file.deviceName).size === 2 * GIB);
      assert.equal(imageSize(pathOf(volumeID)), 2 * GIB);
    });

    it("encrypted volumes grow, and have snapshots inside", async () => {
      const volumeID = await host.volume("qcow2", { encrypted: true });
      const door = await host.add({ volumeID, type: "nbd", writable: true });
      await through(door, "write -P 5 0 1M", "flush");
      await service().volumeExpand(volumeID, 2 * GIB, CALLER);
      assert.equal(Number(await run("nbdinfo", "--size", door.deviceName)), 2 * GIB);
      if (mode === "overlays") {
        await assert.rejects(snap(volumeID), {
          message: /an encrypted volume is copied as a file/,
        });
        return;
      }
      const { id } = await snap(volumeID);
      await through(door, "write -P 6 0 1M", "read -P 6 0 1M", "flush");
      const request = { name: "from", fields: {} };
      const made = await service().volumeCreateFromSnapshot(id, request, CALLER);
      const other = await host.add({ volumeID: made.id, type: "nbd" });
      await through(other, "read -P 5 0 1M");
    });

    it("a snapshot is of one moment and has all that was flushed before, and so has the next", async () => {
      const volumeID = await host.volume("qcow2");
      const door = await host.add({ volumeID, type: "fuse", writable: true });
      const writer = await writing(door);
      const taken: { snapshot: SnapshotRecord; least: number; most: number }[] = [];
      for (const name of ["one", "two", "three"]) {
        const least = writer.flushed;
        const snapshot = await snap(volumeID, name);
        taken.push({ snapshot, least, most: writer.flushed + 1 });
        await writer.goesOn();
      }
      await service().volumeExpand(volumeID, 2 * GIB, CALLER);
      await writer.goesOn();
      await writer.end();
      await host.remove(door.id ?? "", "hard");
      for (const { snapshot, least, most } of taken) {
        const blocks = await blocksAt(snapshot);
        assert.ok(blocks >= least && blocks <= most, `${least} <= ${blocks} <= ${most}`);
      }
      assert.equal(await blocksOf(volumeID), writer.flushed);
      await checked(volumeID);
      const [first] = taken;
      assert.ok(first !== undefined);
      await service().volumeRevert(volumeID, first.snapshot.id, CALLER);
      const blocks = await blocksOf(volumeID);
      assert.ok(blocks >= first.least && blocks <= first.most);
    });
  });
