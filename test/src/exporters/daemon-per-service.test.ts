/** One storage daemon for all volumes of a service: real daemons over image volumes, and clients that are not ours. */
import assert from "node:assert/strict";
import {
  chmodSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Export } from "@libstorage/model";
import type { StorageService } from "@libstorage/server";
import { makeScratch } from "../faults/folders.js";
import { Client, until } from "./client.js";
import { DoorHost, GIB, SERVICE, opens, through } from "./door-host.js";
import type { DoorHostOptions } from "./door-host.js";
import { CALLER, Writer, blocksOfVolume, fileTarget, imageOf, liveMissing } from "./live-client.js";
import { NbdTalk } from "./nbd-talk.js";
import { ended, run } from "./nbd-client.js";
import { tellMonitor } from "./monitor.js";

const FOR_SERVICE = { daemonFor: "service" };
const FOR_VOLUME = { daemonFor: "volume" };

describe("a storage daemon for each service", { skip: liveMissing }, () => {
  const scratch = makeScratch("ps");
  let host: DoorHost;
  const open = async (options: DoorHostOptions = {}): Promise<void> => {
    host = await DoorHost.open(scratch.path, { daemon: FOR_SERVICE, ...options });
  };
  const service = (): StorageService => host.storage.service(SERVICE);
  const parent = (): string => {
    const qsd = join(scratch.path, "l/qsd");
    return join(qsd, readdirSync(qsd)[0] ?? "");
  };
  /** Daemons of volumes, by the names of their folders; those of files are left out. */
  const daemons = (): ReadonlyMap<string, number> =>
    new Map(
      readdirSync(parent())
        .filter((name) => !name.startsWith("f-"))
        .map((name) => [name, Number(readFileSync(join(parent(), name, "pid"), "utf8"))]),
    );
  const onlyPid = (): number => {
    assert.deepEqual([...daemons().keys()], ["service"]);
    return daemons().get("service") ?? 0;
  };
  const pathOf = (volumeID: string): string => imageOf(service(), volumeID);
  const writing = async ({ deviceName }: Export): Promise<Writer> => {
    const writer = new Writer(await fileTarget(deviceName));
    await writer.goesOn();
    return writer;
  };
  const served = (volumeID: string, more: object = {}): Promise<Export> =>
    host.add({ volumeID, type: "nbd", transport: "unix", writable: true, ...more });

  /** Nobody has it: QEMU itself may write it. */
  const isFree = async (volumeID: string): Promise<boolean> => {
    const path = pathOf(volumeID);
    if (holdersOf(path).length > 0) return false;
    const format = path.endsWith(".raw") ? "raw" : "qcow2";
    const { status } = await ended("qemu-io", "-f", format, "-c", "write -P 77 512M 64k", path);
    return status === 0;
  };

  before(() => open());
  afterEach(async () => {
    await host.clear();
    assert.deepEqual(readdirSync(parent()), [], "daemons are left");
  });
  after(async () => {
    await host.close();
    await scratch.remove();
  });

  it("several volumes that are opened at once get one process, and each pattern is read at its own door only", async () => {
    const volumes = [
      await host.volume("raw"),
      await host.volume("qcow2"),
      await host.volume("qcow2", { encrypted: true }),
      await host.volume("qcow2"),
    ];
    const [one = "", two = "", three = "", four = ""] = volumes;
    const doors = await Promise.all([
      host.add({ volumeID: one, type: "nbd", writable: true }),
      served(two),
      host.add({ volumeID: three, type: "fuse", writable: true }),
      host.add({ volumeID: four, type: "fuse", writable: true, growable: true }),
    ]);
    const pid = onlyPid();
    for (const volumeID of volumes) assert.deepEqual(holdersOf(pathOf(volumeID)), [pid]);
    for (const [index, door] of doors.entries())
      await through(door, `write -P ${index + 1} 1M 1M`, "flush");
    for (const [index, door] of doors.entries()) {
      await through(door, `read -P ${index + 1} 1M 1M`);
      await assert.rejects(through(door, `read -P ${((index + 1) % 4) + 1} 1M 1M`));
      await host.remove(door.id ?? "", "hard");
    }
    for (const [index, volumeID] of [one, two].entries()) {
      const format = index === 0 ? "raw" : "qcow2";
      await run("qemu-io", "-f", format, "-c", `read -P ${index + 1} 1M 1M`, pathOf(volumeID));
    }
    assert.deepEqual(readdirSync(parent()), [], "the last one has ended it");
  });

  it("a machine's socket is not another's, and is not used by those who use the other volumes", async () => {
    const [one, two] = [await host.volume(), await host.volume()];
    const file = await host.add({ volumeID: one, type: "fuse", writable: true });
    const writer = await writing(file);
    const doors = [
      await host.add({ volumeID: two, type: "vhost-user-blk", id: "m" }),
      await host.add({ volumeID: one, type: "nbd", id: "n" }).catch(() => undefined),
    ];
    assert.ok(statSync(doors[0]?.deviceName ?? "").isSocket());
    assert.equal(doors[1], undefined, "one writer alone");
    assert.equal(await host.remove("m", "safe"), null);
    await writer.goesOn();
    await writer.end();
  });

  it("who has named an export and may have it cannot go on to that of another volume", async () => {
    const [one, two] = [await host.volume("raw"), await host.volume("raw")];
    const mine = await host.add({ volumeID: one, type: "nbd" });
    const other = await host.add({ volumeID: two, type: "nbd" });
    const url = new URL(mine.deviceName);
    const nameOf = ({ deviceName }: Export): string => new URL(deviceName).pathname.slice(1);
    const talk = await NbdTalk.open(url.hostname, Number(url.port));
    assert.equal(await talk.info(nameOf(mine)), "ack");
    assert.equal(await talk.info(nameOf(other)), "refused");
    assert.equal(await talk.go(nameOf(other)), "refused");
    assert.equal(await talk.list(), "refused");
    assert.equal(await talk.go(nameOf(mine)), "ack");
    talk.end();
  });

  it("a name of one's own is of one export, whatever the volume", async () => {
    const [one, two] = [await host.volume(), await host.volume()];
    const first = await served(one, { name: "disk" });
    await through(first, "write -P 4 0 4k");
    await assert.rejects(served(two, { name: "disk" }), { code: "already-exists" });
    await assert.rejects(host.add({ volumeID: two, type: "nbd", name: "disk" }), {
      code: "already-exists",
    });
    await through(first, "read -P 4 0 4k");
  });

  it("the last export of a volume leaves the others serving, and its image to whoever comes", async () => {
    const other = await host.volume("raw");
    const file = await host.add({ volumeID: other, type: "fuse", writable: true });
    const writer = await writing(file);
    const pid = onlyPid();
    for (const format of ["raw", "qcow2"] as const) {
      const volumeID = await host.volume(format, { opts: { format, shareable: true } });
      const doors = [
        await served(volumeID, { throttle: { iopsTotal: 100_000 } }),
        await host.add({ volumeID, type: "nbd", writable: true }),
        await host.add({ volumeID, type: "vhost-user-blk", writable: true }),
      ];
      const [first] = doors;
      assert.ok(first !== undefined);
      await through(first, "write -P 6 0 1M", "flush");
      if (format === "qcow2")
        // Layers that were laid over it live go with it.
        for (const name of ["one", "two"])
          await service().volumeSnapshot(volumeID, { name, fields: {} }, CALLER);
      for (const { id = "" } of doors) {
        assert.equal(await isFree(volumeID), false);
        await host.remove(id, "hard");
      }
      assert.equal(await isFree(volumeID), true);
      assert.equal(onlyPid(), pid);
      await writer.goesOn();
      const again = await served(volumeID);
      await through(again, "read -P 6 0 1M", "read -P 77 512M 64k");
      await host.remove(again.id ?? "");
      assert.equal(await isFree(volumeID), true);
    }
    await writer.end();
    await host.remove(file.id ?? "", "hard");
    assert.equal(await blocksOfVolume(service(), other, scratch.path), writer.flushed);
  });

  it("an export that was shut down softly, and is cut off, leaves nothing of its volume", async () => {
    const [one, two] = [await host.volume(), await host.volume()];
    const stays = await served(two);
    const door = await served(one, { id: "s" });
    const client = new Client(door.deviceName);
    await client.says("write -P 3 0 4k", /wrote 4096/);
    assert.equal((await host.remove("s", "soft"))?.state, "shutdown");
    await client.says("write 0 4k", /failed/);
    await client.end();
    await until("it is gone", async () => (await host.exports()).length === 1);
    assert.equal(await isFree(one), true);
    await through(stays, "write -P 2 0 4k", "read -P 2 0 4k");
  });

  it("the daemon is killed, and all exports come back", async () => {
    const [one, two] = [await host.volume("raw"), await host.volume("qcow2")];
    const files = [
      await host.add({ volumeID: one, type: "fuse", writable: true, writethrough: true }),
      await host.add({ volumeID: two, type: "fuse", writable: true, writethrough: true }),
    ];
    const writers = await Promise.all(files.map(writing));
    const first = onlyPid();
    process.kill(first, "SIGKILL");
    // Without an error: they wait for the next daemon.
    for (const writer of writers) await writer.goesOn();
    assert.notEqual(onlyPid(), first);
    for (const writer of writers) await writer.end();
    for (const { id = "" } of files) await host.remove(id, "hard");
    for (const [index, volumeID] of [one, two].entries())
      assert.equal(
        await blocksOfVolume(service(), volumeID, scratch.path),
        writers[index]?.flushed,
      );
  });

  it("a server that starts again finds it, and ends in it what no record names", async () => {
    const [one, two] = [await host.volume("raw"), await host.volume("qcow2")];
    const doors = [
      await host.add({ volumeID: one, type: "fuse", writable: true }),
      await served(two),
    ];
    const [file, unix] = doors;
    assert.ok(file !== undefined && unix !== undefined);
    const writer = await writing(file);
    const client = new Client(unix.deviceName);
    await client.says("write -P 8 0 64k", /wrote 65536/);
    const pid = onlyPid();
    await host.close();
    const [image, stray] = [join(scratch.path, "unknown.raw"), "v-00112233445566aa"];
    writeFileSync(image, Buffer.alloc(1024 ** 2));
    await tellMonitor(join(parent(), "service/qmp.sock"), [
      ["object-add", { "qom-type": "throttle-group", id: "t-00112233445566aa-1" }],
      [
        "blockdev-add",
        { driver: "raw", "node-name": stray, file: { driver: "file", filename: image } },
      ],
      [
        "blockdev-add",
        {
          driver: "throttle",
          "node-name": "x-00112233445566aa-1",
          "throttle-group": "t-00112233445566aa-1",
          file: stray,
        },
      ],
      ["block-export-add", { type: "nbd", id: "e-1", "node-name": "x-00112233445566aa-1" }],
    ]);
    assert.deepEqual(holdersOf(image), [pid]);
    await open();
    assert.deepEqual(host.storage.warnings, []);
    assert.equal(onlyPid(), pid, "the same process");
    assert.deepEqual(holdersOf(image), []);
    // Its socket was the server's; what it wrote is there for whoever comes again.
    await client.end();
    await through(unix, "read -P 8 0 64k");
    await writer.goesOn();
    await writer.end();
    await host.remove(unix.id ?? "");
    assert.equal(await isFree(two), true);
  });

  it("another daemonFor at the next start leaves no image open twice, and no process that is not needed", async () => {
    const [one, two] = [await host.volume("raw"), await host.volume("qcow2")];
    const file = await host.add({ volumeID: two, type: "fuse", writable: true });
    const unix = await served(one, { id: "u" });
    const writer = await writing(file);
    await through(unix, "write -P 5 0 1M");
    for (const daemon of [FOR_VOLUME, FOR_SERVICE]) {
      const before = [...daemons().values()];
      await host.close();
      await writer.goesOn();
      await open({ daemon });
      assert.deepEqual(host.storage.warnings, []);
      assert.equal(daemons().size, daemon === FOR_VOLUME ? 2 : 1);
      for (const pid of before) assert.equal(isRunning(pid), false, `process ${pid} is left`);
      for (const volumeID of [one, two]) assert.equal(holdersOf(pathOf(volumeID)).length, 1);
      // Without an error: the file's daemon finds the volume's, wherever that is.
      await writer.goesOn();
      await through(unix, "read -P 5 0 1M");
    }
    await writer.end();
    await host.remove(file.id ?? "", "hard");
    assert.equal(await blocksOfVolume(service(), two, scratch.path), writer.flushed);
  });

  it("as another user it is let to each image when that is opened", async () => {
    await host.close();
    chmodSync(scratch.path, 0o755);
    await open({ daemon: { ...FOR_SERVICE, daemonUser: "nobody", daemonMemory: "4GiB" } });
    for (const pattern of [1, 2, 3]) {
      const door = await served(await host.volume(pattern === 2 ? "raw" : "qcow2"));
      await through(door, `write -P ${pattern} 0 64k`, `read -P ${pattern} 0 64k`);
    }
    const uid = Number(await run("id", "-u", "nobody"));
    assert.equal(statSync(`/proc/${onlyPid()}`).uid, uid);
    for (const { id = "" } of await host.exports()) await host.remove(id);
    await host.close();
    await open();
  });

  it("exporters that would each open the images are refused", async () => {
    await assert.rejects(
      DoorHost.open(join(scratch.path, "other"), { daemon: FOR_SERVICE, nbd: FOR_VOLUME }),
      { message: /need the same "daemonFor"/ },
    );
  });

  it("one volume comes and another goes, fifty times", async () => {
    const volumes = [await host.volume("raw"), await host.volume("qcow2")];
    let there = await served(volumes[0] ?? "");
    await through(there, "write -P 1 0 64k");
    const pids = new Set<number>();
    for (let round = 1; round <= 50; round += 1) {
      const next = volumes[round % 2] ?? "";
      const [, come] = await Promise.all([host.remove(there.id ?? ""), served(next)]);
      pids.add(onlyPid());
      assert.deepEqual(holdersOf(pathOf(volumes[(round + 1) % 2] ?? "")), []);
      const seen = round > 1 ? [`read -P ${round - 1} 0 64k`] : [];
      await through(come, ...seen, `write -P ${round + 1} 0 64k`, "flush");
      there = come;
    }
    // Either was first, now and then; both are well.
    assert.ok(pids.size >= 1);
  });

  for (const snapshots of ["overlays", "inner"] as const)
    it(`one volume grows and has ${snapshots} made of it while another is written`, async () => {
      await host.close();
      await open({ image: { snapshots } });
      const [one, two] = [await host.volume("qcow2"), await host.volume("qcow2")];
      const files = [
        await host.add({ volumeID: one, type: "fuse", writable: true }),
        await host.add({ volumeID: two, type: "fuse", writable: true }),
      ];
      const [changed, other] = await Promise.all(files.map(writing));
      assert.ok(changed !== undefined && other !== undefined);
      const pid = onlyPid();
      const least = changed.flushed;
      const snapshot = await service().volumeSnapshot(one, { name: "s", fields: {} }, CALLER);
      await service().volumeExpand(one, 2 * GIB, CALLER);
      await Promise.all([changed.goesOn(), other.goesOn()]);
      await until("it is larger", () => statSync(files[0]?.deviceName ?? "").size === 2 * GIB);
      assert.equal(statSync(files[1]?.deviceName ?? "").size, GIB);
      await Promise.all([changed.end(), other.end()]);
      assert.equal(onlyPid(), pid);
      for (const { id = "" } of files) await host.remove(id, "hard");
      const request = { name: "from", fields: {} };
      const made = await service().volumeCreateFromSnapshot(snapshot.id, request, CALLER);
      const blocks = await blocksOfVolume(service(), made.id, scratch.path);
      assert.ok(blocks >= least && blocks <= changed.flushed, `${least} <= ${blocks}`);
      assert.equal(await blocksOfVolume(service(), one, scratch.path), changed.flushed);
      assert.equal(await blocksOfVolume(service(), two, scratch.path), other.flushed);
    });

  it("a withdrawal that cannot be proven ends the process, and the others come back", async () => {
    const [stuck, other] = [await host.volume("raw"), await host.volume("qcow2")];
    const throttle = { bpsTotal: 256 * 1024 };
    const door = await served(stuck, { id: "stuck", throttle });
    const file = await host.add({
      volumeID: other,
      type: "fuse",
      writable: true,
      writethrough: true,
    });
    const writer = await writing(file);
    const unflushed = await served(await host.volume("qcow2"));
    const idle = new Client(unflushed.deviceName);
    await idle.says("write -P 9 0 1M", /wrote 1048576/);
    const first = onlyPid();
    const client = new Client(door.deviceName);
    // The first is let through, and paid for by the next, which is on its way for longer than is waited for.
    await client.says("write 0 16M", /wrote 16777216/);
    const late = client.says("write 32M 16M", /failed|wrote/);
    // It passes this process on its way to the daemon.
    await sleep(3000);
    assert.equal(await host.remove("stuck", "hard"), null);
    assert.equal(isRunning(first), false, "its end is the proof");
    // No program is run before the file answers: this process has it open, which a start of another one waits for.
    await writer.goesOn();
    assert.notEqual(onlyPid(), first);
    assert.equal(await isFree(stuck), true);
    await late;
    await Promise.all([client.end(), idle.end(), writer.end()]);
    // It was not flushed by its client.
    await until("it is served", () => opens(unflushed.deviceName));
    await through(unflushed, "read -P 9 0 1M");
    await host.remove(file.id ?? "", "hard");
    assert.equal(await blocksOfVolume(service(), other, scratch.path), writer.flushed);
  });
});

function isRunning(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8") !== "";
  } catch {
    return false;
  }
}

/** Storage daemons that have a file open. @see proc(5) */
function holdersOf(path: string): readonly number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const isDaemon = readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("qemu-storage");
        const links = isDaemon ? readdirSync(`/proc/${pid}/fd`) : [];
        return links.some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === path);
      } catch {
        // It has ended, or the file was closed, meanwhile.
        return false;
      }
    })
    .map(Number);
}
