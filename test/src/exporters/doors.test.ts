/** Exports that are made for themselves: real daemons over image volumes, and clients that are not ours. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { Export } from "@libstorage/model";
import { toolsMissing } from "../drivers/image-place.js";
import { makeScratch } from "../faults/folders.js";
import { Client, until } from "./client.js";
import { DoorHost, SERVICE, opens, through } from "./door-host.js";
import { askMonitor } from "./monitor.js";
import { ended, run } from "./nbd-client.js";

const skip =
  toolsMissing("qemu-img", "qemu-io", "qemu-storage-daemon", "nbdinfo", "nbdcopy") ||
  (process.getuid?.() === 0 ? false : "FUSE mounts need root") ||
  (existsSync("/dev/fuse") ? false : "this kernel has no FUSE");

const GIB = 1024 ** 3;

function mountsBelow(folder: string): string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.includes(` ${folder}/`));
}

describe("doors", { skip }, () => {
  const scratch = makeScratch("d");
  let host: DoorHost;
  const daemonFolders = (): string[] => {
    const parent = join(scratch.path, "l/qsd");
    if (!existsSync(parent)) return [];
    return readdirSync(parent).flatMap((one) =>
      readdirSync(join(parent, one)).map((name) => join(parent, one, name)),
    );
  };
  const pidsOf = (): number[] =>
    daemonFolders().map((folder) => Number(readFileSync(join(folder, "pid"), "utf8")));

  before(async () => {
    host = await DoorHost.open(scratch.path);
  });
  after(async () => {
    await host.close();
    assert.deepEqual(daemonFolders(), [], "daemons are left");
    assert.deepEqual(mountsBelow(scratch.path), [], "mounts are left");
    await scratch.remove();
  });

  for (const format of ["raw", "qcow2"] as const)
    it(`a ${format} volume through many doors: what is written at each is read at all others`, async () => {
      const volumeID = await host.volume(format, { opts: { format, shareable: true } });
      const doors: Export[] = [
        await host.add({ volumeID, type: "nbd", writable: true }),
        await host.add({ volumeID, type: "nbd", transport: "unix", writable: true }),
        await host.add({ volumeID, type: "fuse", writable: true }),
        await host.add({ volumeID, type: "fuse" }),
        await host.add({ volumeID, type: "nbd", transport: "unix" }),
      ];
      const vhost = await host.add({ volumeID, type: "vhost-user-blk", writable: true });
      assert.ok(statSync(vhost.deviceName).isSocket());
      for (const [index, door] of doors.entries()) {
        if (door.writable !== true) continue;
        await through(door, `write -P ${index + 1} ${index}M 1M`, "flush");
        for (const other of doors) await through(other, `read -P ${index + 1} ${index}M 1M`);
      }
      for (const { id = "" } of [...doors, vhost]) assert.equal(await host.remove(id), null);
      assert.deepEqual(await host.exports(), []);
    });

  /** Once its last client has gone, of whose end a server hears a moment later. */
  async function removed(id: string): Promise<void> {
    await until(`${id} is removed`, () =>
      host.remove(id).then(
        () => true,
        () => false,
      ),
    );
  }

  it("one writer, or many readers", async () => {
    const volumeID = await host.volume();
    const writer = await host.add({ volumeID, type: "nbd", id: "w", writable: true });
    assert.equal(writer.id, "w");
    await assert.rejects(host.add({ volumeID, type: "fuse" }), {
      code: "failed-precondition",
      message: /exported as w since/,
    });
    await host.remove("w");
    const readers = [
      await host.add({ volumeID, type: "nbd", id: "r1" }),
      await host.add({ volumeID, type: "fuse", id: "r2" }),
    ];
    await assert.rejects(host.add({ volumeID, type: "nbd", writable: true }), {
      code: "failed-precondition",
    });
    for (const reader of readers) {
      const { text } = await attempt(reader.deviceName, "write -P 1 0 4k");
      assert.match(text, /failed|[Rr]ead-only|denied|not permitted/);
      await removed(reader.id ?? "");
    }
  });

  it("a second export of an id is refused, in another volume too, and nothing changes", async () => {
    const [one, two] = [await host.volume(), await host.volume()];
    await host.add({ volumeID: one, type: "nbd", id: "same" });
    await assert.rejects(host.add({ volumeID: two, type: "nbd", id: "Same" }), {
      code: "already-exists",
    });
    assert.equal((await host.exports()).length, 1);
    await host.remove("same");
  });

  it("what does not fit is refused in clear words, and nothing changes", async () => {
    const volumeID = await host.volume();
    const refused = async (request: object, expected: RegExp): Promise<void> => {
      const wanted = { volumeID, type: "nbd", ...request } as const;
      await assert.rejects(host.add(wanted as never), { message: expected });
      assert.deepEqual(await host.exports(), []);
      assert.deepEqual(daemonFolders(), []);
    };
    await refused({ volumeID: "nothing" }, /volume nothing not found/);
    await refused({ growable: true }, /does not take growable/);
    await refused({ transport: "unix", maxConnections: 2 }, /does not take maxConnections/);
    await refused({ transport: "unix", path: "/etc/nbd.sock" }, /not in the folder/);
    const folder = join(scratch.path, "l/nbd");
    const own = readdirSync(folder)[0] ?? "";
    const long = join(folder, own, "x".repeat(120));
    await refused({ transport: "unix", path: long }, /at most 107/);
    const inTheWay = join(folder, own, "mine.txt");
    writeFileSync(inTheWay, "precious");
    await refused({ transport: "unix", path: inTheWay }, /is there already/);
    assert.equal(readFileSync(inTheWay, "utf8"), "precious");
    await refused({ bitmaps: ["none"] }, /dirty bitmap none is not found/);
    await refused({ type: "fuse", growable: true }, /only what may be written can grow/);
    await refused({ id: "1x" }, /must begin with a letter/);
    await refused({ throttle: { bpsTotal: 1, bpsRead: 1 } }, /must not have a total together/);
  });

  it("safe removal is refused while a client is there; hard is not", async () => {
    const volumeID = await host.volume("qcow2", { opts: { shareable: true } });
    const all = [
      await host.add({ volumeID, type: "nbd", id: "tcp", writable: true }),
      await host.add({ volumeID, type: "nbd", id: "unix", transport: "unix", writable: true }),
      await host.add({ volumeID, type: "fuse", id: "file", writable: true }),
    ];
    for (const door of all) {
      const client = new Client(door.deviceName);
      await client.says("read 0 4k", /read 4096\/4096/);
      await assert.rejects(host.remove(door.id ?? ""), {
        code: "failed-precondition",
        message: /is in use by/,
      });
      await client.says("read 0 4k", /read 4096\/4096/);
      assert.equal(await host.remove(door.id ?? "", "hard"), null);
      // What was read before may still be in the cache of a file.
      await client.says("write 0 4k", /write failed/);
      await client.end();
    }
    assert.deepEqual(await host.exports(), []);
  });

  it("a hidden export lets nobody new in, and goes with its last client", async () => {
    const volumeID = await host.volume("qcow2", { opts: { shareable: true } });
    const seen = host.entries();
    const all = [
      await host.add({ volumeID, type: "nbd", id: "h1", writable: true }),
      await host.add({ volumeID, type: "nbd", id: "h2", transport: "unix", writable: true }),
      await host.add({ volumeID, type: "fuse", id: "h3", writable: true }),
    ];
    for (const door of all) {
      const client = new Client(door.deviceName);
      await client.says("write -P 9 0 4k", /wrote 4096/);
      assert.equal((await host.remove(door.id ?? "", "hide"))?.state, "hidden");
      assert.equal(await opens(door.deviceName), false, "a new client");
      await client.says("read -P 9 0 4k", /read 4096\/4096/);
      await client.end();
      await until(
        "it is gone",
        async () => !(await host.exports()).some(({ id }) => id === door.id),
      );
      const own = seen.filter(({ exportID, phase }) => exportID === door.id && phase === "end");
      assert.deepEqual(
        own.map(({ operation }) => operation),
        ["exportAdd", "exportHide", "exportRemove"],
      );
    }
  });

  it("an export that is shut down softly answers requests with ESHUTDOWN, and loses no write that was answered", async () => {
    const volumeID = await host.volume("qcow2", { opts: { shareable: true } });
    for (const more of [
      { type: "nbd" },
      { type: "nbd", transport: "unix" },
      { type: "fuse" },
    ] as const) {
      const door = await host.add({ volumeID, id: "s", writable: true, ...more });
      const client = new Client(door.deviceName);
      await client.says("write -P 3 0 4k", /wrote 4096/);
      assert.equal((await host.remove("s", "soft"))?.state, "shutdown");
      const expected =
        more.type === "fuse" ? /failed: / : /failed: Cannot send after transport endpoint shutdown/;
      await client.says("write -P 4 0 4k", expected);
      await client.says("read 0 4k", expected);
      assert.equal(await opens(door.deviceName), false, "a new client");
      await client.end();
      await until("it is gone", async () => (await host.exports()).length === 0);
      const again = await host.add({ volumeID, type: "nbd", id: "s", writable: true });
      await through(again, "read -P 3 0 4k");
      await removed("s");
    }
  });

  it("a throttle is changed while it is in use", async () => {
    const volumeID = await host.volume("raw");
    for (const type of ["nbd", "fuse"] as const) {
      const throttle = { bpsTotal: 1024 ** 2 } as never;
      const door = await host.add({ volumeID, type, id: "t", writable: true, throttle });
      const client = new Client(door.deviceName);
      await client.says("write 0 4k", /wrote 4096/);
      const timed = async (): Promise<number> => {
        const started = performance.now();
        // One that comes alone is let through, and paid for by the next.
        await client.says("write 0 8M", /wrote 8388608/);
        await client.says("write 0 8M", /wrote 8388608/);
        return performance.now() - started;
      };
      const slow = await timed();
      const params = { service: SERVICE, exportID: "t" };
      const none = { throttle: { bpsTotal: 0 } as never };
      const changed = await host.service.exportUpdate(params, none, {});
      const limits = changed.options?.["throttle"] as Record<string, number> | undefined;
      assert.equal(limits?.["bpsTotal"], 0);

      const fast = await timed();
      assert.ok(slow > 6000 && fast < slow / 2, `${slow} ms, then ${fast} ms`);
      await client.end();
      await host.remove("t");
    }
  });

  it("no more connections than were allowed, and others after a change", async () => {
    const volumeID = await host.volume();
    const door = await host.add({ volumeID, type: "nbd", id: "m", maxConnections: 1 });
    const client = new Client("-r", door.deviceName);
    await client.says("read 0 4k", /read 4096/);
    assert.equal(await opens(door.deviceName), false);
    const params = { service: SERVICE, exportID: "m" };
    await host.service.exportUpdate(params, { maxConnections: 2 }, {});
    assert.equal(await opens(door.deviceName), true);
    await client.end();
    await host.remove("m", "hard");
  });

  it("description, allocation depth and a name of one's own are shown to clients", async () => {
    const volumeID = await host.volume();
    const door = await host.add({
      volumeID,
      type: "nbd",
      id: "n",
      name: "my.disk",
      transport: "unix",
      writable: true,
      writethrough: true,
      description: "a disk",
      allocationDepth: true,
    });
    await through(door, "write -P 1 1M 1M");
    const info = JSON.parse(await run("nbdinfo", "--json", door.deviceName)) as {
      exports: { "export-name": string; description: string; contexts: string[] }[];
    };
    assert.equal(info.exports[0]?.["export-name"], "my.disk");
    assert.equal(info.exports[0]?.description, "a disk");
    const map = await run("nbdinfo", "--map=qemu:allocation-depth", door.deviceName);
    assert.match(map, /1048576 +1048576 +1 +local/);
    await assert.rejects(host.add({ volumeID, type: "nbd", name: "my.disk", id: "o" }), {
      code: "failed-precondition",
    });
    await host.remove("n");
  });

  it("a file has one size, whoever truncates it; what may grow is another kind", async () => {
    const volumeID = await host.volume();
    const fixed = await host.add({ volumeID, type: "fuse", id: "f", writable: true });
    assert.equal(statSync(fixed.deviceName).size, GIB);
    for (const size of ["1M", "2G"])
      assert.notEqual((await ended("truncate", "-s", size, fixed.deviceName)).status, 0);
    assert.equal(statSync(fixed.deviceName).size, GIB);
    await host.remove("f");
  });

  it("a daemon that dies is replaced, and a file's user sees no error", async () => {
    const volumeID = await host.volume("qcow2");
    const door = await host.add({ volumeID, type: "fuse", id: "k", writable: true });
    const client = new Client(door.deviceName);
    await client.says("write -P 5 0 1M", /wrote 1048576/);
    await client.says("flush", /qemu-io>/);
    const own = daemonFolders().find((one) => !one.includes("/f-")) ?? "";
    process.kill(Number(readFileSync(join(own, "pid"), "utf8")), "SIGKILL");
    await client.says("write -P 6 1M 1M", /wrote 1048576/);
    await client.says("read -P 5 0 1M", /read 1048576\/1048576/);
    assert.doesNotMatch(client.text, /failed/);
    await client.end();
    await host.remove("k");
  });

  it("what a file's user was told is written outlives the volume's daemon, without a flush before it died", async () => {
    for (const format of ["raw", "qcow2"] as const) {
      const volumeID = await host.volume(format);
      const door = await host.add({ volumeID, type: "fuse", id: "u", writable: true });
      const client = new Client("-t", "none", door.deviceName);
      for (let at = 0; at < 16; at += 1)
        await client.says(`write -P 7 ${at}M 64k`, /wrote 65536\/65536/);
      const own = daemonFolders().find((one) => !one.includes("/f-")) ?? "";
      process.kill(Number(readFileSync(join(own, "pid"), "utf8")), "SIGKILL");
      await client.says("flush", /qemu-io>/);
      for (let at = 0; at < 16; at += 1)
        await client.says(`read -P 7 ${at}M 64k`, /read 65536\/65536/);
      await client.end();
      await host.remove("u");
      assert.doesNotMatch(client.text, /failed/, format);
    }
  });

  it("the daemon of a file that dies leaves a stale mount, which is cleared away", async () => {
    const volumeID = await host.volume("qcow2");
    const door = await host.add({ volumeID, type: "fuse", id: "z", writable: true });
    const own = daemonFolders().find((one) => one.includes("/f-")) ?? "";
    for (let round = 0; round < 3; round += 1) {
      const pid = Number(readFileSync(join(own, "pid"), "utf8"));
      process.kill(pid, "SIGKILL");
      await until("it is served again", () => opens(door.deviceName));
      assert.equal(mountsBelow(dirname(door.deviceName)).length, 1, "they do not stack");
    }
    await host.remove("z", "hard");
  });

  it("a server that starts again finds what it exported, and ends what no record names", async () => {
    const volumeID = await host.volume("qcow2", { opts: { shareable: true } });
    const file = await host.add({ volumeID, type: "fuse", id: "p", writable: true });
    const unix = await host.add({
      volumeID,
      type: "nbd",
      transport: "unix",
      id: "q",
      writable: true,
    });
    const client = new Client(file.deviceName);
    await client.says("write -P 7 0 4k", /wrote 4096/);
    const before = pidsOf();
    await host.close();
    await client.says("write -P 8 4k 4k", /wrote 4096/);
    const own = daemonFolders().find((one) => !one.includes("/f-")) ?? "";
    const [named] = (await askMonitor(join(own, "qmp.sock"), [["query-block-exports", {}]])) as [
      readonly { "node-name": string }[],
    ];
    const stranger = { type: "nbd", id: "e-stray", name: "stray" };
    await askMonitor(join(own, "qmp.sock"), [
      ["block-export-add", { ...stranger, "node-name": named[0]?.["node-name"] }],
    ]);
    const stray = `nbd+unix:///stray?socket=${join(own, "nbd.sock")}`;
    assert.equal(await opens(stray), true);
    const deserted = join(dirname(own), "0123456789abcdef");
    const desertedPid = await startDaemon(deserted);
    host = await DoorHost.open(scratch.path);
    assert.equal(await opens(stray), false);
    assert.equal(existsSync(deserted), false);
    assert.equal(isRunning(desertedPid), false);
    assert.deepEqual(pidsOf(), before, "the same daemons");
    await client.says("read -P 8 4k 4k", /read 4096\/4096/);
    await through(unix, "read -P 7 0 4k");
    await client.end();
    await host.remove("p");
    await host.remove("q");
  });
});

/** Runs qemu-io, whatever comes of it. */
async function attempt(target: string, command: string): Promise<{ readonly text: string }> {
  const { stdout, stderr } = await ended("qemu-io", "-f", "raw", "-c", command, target);
  return { text: stdout + stderr };
}

/** A storage daemon as a server starts one, in a folder of which no record knows. @returns its process */
async function startDaemon(folder: string): Promise<number> {
  mkdirSync(folder);
  const pidFile = join(folder, "pid");
  const chardev = `socket,id=qmp,path=${join(folder, "qmp.sock")},server=on,wait=off`;
  const args = ["--chardev", chardev, "--monitor", "chardev=qmp", "--pidfile", pidFile];
  await run("qemu-storage-daemon", ...args, "--daemonize");
  const pid = Number(readFileSync(pidFile, "utf8"));
  assert.ok(isRunning(pid));
  return pid;
}

/** One that has ended and that nobody has asked about has no arguments. */
function isRunning(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`, "utf8") !== "";
}
