/** Volumes of another host by NBD, through the kernel's own client. */
import assert from "node:assert/strict";
import { realpathSync } from "node:fs";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { checkHost } from "@libstorage/client/host";
import type { Attached } from "@libstorage/client/host";
import type { Caller } from "@libstorage/server";
import { SERVICE } from "../exporters/door-host.js";
import { ended, run } from "../exporters/nbd-client.js";
import { insideOneMachine } from "./inside.js";
import { connectedDevices, NbdHost } from "./nbd-host.js";
import { sh as shInOneGo } from "./shell.js";

/** Not in one go: this process serves what is read and written. */
const sh = (script: string): Promise<string> => run("bash", "-euc", script);

const GIB = 1024 ** 3;
const CALLER: Caller = { who: "tester", via: "test", tx: "00000000-0000-1000-8000-000000000000" };
const KILLED = fileURLToPath(new URL("nbd-killed.js", import.meta.url));
const MOUNT = "/mnt/nbd";
/** Longer than the 30 s after which the kernel asks what became of a request. */
const AWAY_MS = 40_000;

/** Of somebody else, from before to after. */
const FOREIGN = "nbd0";

const host = new NbdHost(
  "/suite/h",
  { listen: "127.0.0.1:19431" },
  // A server takes its time to start here.
  { nbd: { client: "kernel", reconnectSeconds: 600 } },
);
/** Few, since each costs the slow machine a storage daemon. */
let one: Attached;
let other: Attached;

function deviceOf({ device }: Attached): string {
  const path = realpathSync(device);
  assert.match(path, /^\/dev\/nbd\d+$/, "the kernel's client");
  assert.notEqual(path, `/dev/${FOREIGN}`);
  return path;
}

async function sizeOf({ device }: Attached): Promise<number> {
  return Number(await run("blockdev", "--getsize64", device));
}

async function assertForeignWorks(): Promise<void> {
  await run("dd", `if=/dev/${FOREIGN}`, "of=/dev/null", "bs=64k", "count=1", "iflag=direct");
}

function life(): void {
  it("is a disk of the volume's size, and nothing of it is left when it goes", async () => {
    await host.connect(other);
    const path = deviceOf(other);
    await host.connect(other);
    assert.equal(deviceOf(other), path, "doing it again changes nothing");
    assert.equal(await sizeOf(other), GIB);
    await sh(`tr '\\0' '\\253' < /dev/zero | head -c 4M | dd of=${path} bs=1M conv=fsync`);
    await host.disconnect(other);
    await host.disconnect(other);
    host.assertNothingLeft([FOREIGN]);
  });

  it("carries a file system, and does not leave while that is mounted", async () => {
    await host.connect(one);
    const wanted = { type: "ext4", isAsked: true };
    const { signal } = host.limits();
    await host.executor.mount?.({ ...one, mountPoint: MOUNT, fileSystem: wanted, signal });
    await sh(`echo hello > ${MOUNT}/file && sync`);
    await assert.rejects(host.disconnect(one), {
      code: "failed-precondition",
      message: /cannot leave this host: the mount \/mnt\/nbd uses \/dev\/nbd\d+/,
    });
    await host.executor.unmount?.({ ...one, mountPoint: MOUNT, removeFolder: true, signal });
    await host.disconnect(one);
    await host.connect(one);
    await host.executor.mount?.({ ...one, mountPoint: MOUNT, fileSystem: wanted, signal });
    assert.equal(await sh(`cat ${MOUNT}/file`), "hello\n");
    await host.executor.unmount?.({ ...one, mountPoint: MOUNT, removeFolder: true, signal });
    await host.disconnect(one);
    host.assertNothingLeft([FOREIGN]);
  });

  it("a server that is away under a writer is a pause, and no I/O error", async () => {
    await host.connect(one);
    await run("mkfs.ext4", "-q", "-F", one.device);
    await sh(`mkdir -p ${MOUNT} && mount ${one.device} ${MOUNT}`);
    const script = `for i in $(seq 20); do dd if=/dev/urandom of=${MOUNT}/f$i bs=64k count=4 conv=fsync status=none || exit 7; echo $i; sleep 0.3; done`;
    const writing = ended("sh", "-c", script);
    await sleep(1000);
    await host.stop();
    await sleep(AWAY_MS);
    await host.start();
    const { status, stderr, stdout } = await writing;
    assert.equal(status, 0, stderr);
    assert.match(stdout, /\n20\n$/);
    await sh(`umount ${MOUNT}`);
    await run("fsck.ext4", "-fn", one.device);
    await host.disconnect(one);
    host.assertNothingLeft([FOREIGN]);
  });

  it("two volumes at once get devices of their own, and nobody else's", async () => {
    const all = [one, other];
    await Promise.all(all.map((each) => host.connect(each)));
    assert.equal(new Set(all.map(deviceOf)).size, all.length);
    assert.equal(connectedDevices().length, all.length + 1);
    for (const [index, { device }] of all.entries())
      await sh(`echo volume ${index} | dd of=${device} conv=fsync status=none`);
    await assertForeignWorks();
    for (const [index, { device }] of all.entries())
      assert.match(await sh(`head -c 9 ${device}`), new RegExp(`^volume ${index}`));
    await Promise.all(all.map((each) => host.disconnect(each)));
    await assertForeignWorks();
    host.assertNothingLeft([FOREIGN]);
  });

  it("is not said to be gone while a program has its device open", async () => {
    await host.connect(other);
    const holding = ended("sh", "-c", `exec 3< ${other.device}; sleep 60`);
    await sleep(1000);
    await assert.rejects(host.disconnect(other), {
      code: "failed-precondition",
      message: /was disconnected.*a program has it open/,
    });
    await holding;
    await host.disconnect(other);
    host.assertNothingLeft([FOREIGN]);
  });

  it("what was written is in the image when the host has let go of it", async () => {
    const { volumeID } = other;
    await host.server.detachFromHost(volumeID);
    const disk = `${host.folder}/root/vol/${volumeID}/disk.qcow2`;
    for (const read of ["read -P 171 1M 3M", "read -P 0 4M 1M"]) {
      const said = await run("qemu-io", "-r", "-f", "qcow2", "-c", read, disk);
      assert.doesNotMatch(said, /Pattern verification failed/);
    }
  });
}

function leftovers(): void {
  const assertCleaned = async (): Promise<void> => {
    const found = await checkHost(host.checkOptions(), false);
    const [leftover] = found.filter(({ kind }) => kind === "nbd-leftover");
    assert.equal(leftover?.state, "found");
    const fixed = await checkHost(host.checkOptions(), true);
    for (const { state, next } of fixed.filter(({ kind }) => kind === "nbd-leftover"))
      assert.equal(state, "fixed", next);
    host.assertNothingLeft([FOREIGN]);
    await assertForeignWorks();
  };

  for (const command of ["qemu-storage-daemon", "start-stop-daemon"])
    it(`of a client that was killed after ${command} are cleared by a check of the host`, async () => {
      const killed = await ended("node", KILLED, host.folder, command, JSON.stringify(one));
      assert.equal(killed.status, null, `it was killed: ${killed.stderr}`);
      const isConnected = command === "start-stop-daemon";
      assert.equal(connectedDevices().length, isConnected ? 2 : 1);
      await assertCleaned();
    });

  it("of a killed client are taken over by the next one", async () => {
    await ended("node", KILLED, host.folder, "start-stop-daemon", JSON.stringify(one));
    const [, device] = connectedDevices();
    await host.connect(one);
    assert.equal(deviceOf(one), `/dev/${device}`);
    await host.disconnect(one);
    host.assertNothingLeft([FOREIGN]);
  });

  const killDaemon = async (): Promise<void> => {
    process.kill(host.daemonPid(), "SIGKILL");
    await sleep(1000);
  };

  it("of a killed storage daemon are cleared, and not while something uses the device", async () => {
    await host.connect(one);
    await sh(
      `mkfs.ext4 -q -F ${one.device} && mkdir -p ${MOUNT} && mount -o ro ${one.device} ${MOUNT}`,
    );
    await killDaemon();
    const { signal } = host.limits();
    await assert.rejects(
      async () => host.executor.mount?.({ ...one, mountPoint: "/mnt/other", signal }),
      { message: /its storage daemon has ended, and \/dev\/nbd\d+ fails/ },
    );
    const [used] = (await checkHost(host.checkOptions(), true)).filter(
      ({ kind }) => kind === "nbd-leftover",
    );
    assert.equal(used?.state, "left");
    assert.match(used?.next ?? "", /is used by the mount \/mnt\/nbd/);
    await sh(`umount ${MOUNT}`);
    await assertCleaned();
  });

  it("of a killed storage daemon do not keep the volume from being connected anew", async () => {
    await host.connect(one);
    await killDaemon();
    await host.connect(one);
    assert.equal(await sizeOf(one), GIB);
    await host.disconnect(one);
    host.assertNothingLeft([FOREIGN]);
  });
}

function refusals(): void {
  it("of an export that is not for this host are in clear words, and leave nothing", async () => {
    const { volumeID, fields } = one;
    const device = "/dev/disk/by-id/nbd-other";
    await assert.rejects(
      host.connect({ volumeID, device, fields: { ...fields, export: "other" } }),
      {
        code: "permission-denied",
        message: /has no export other for this host/,
      },
    );
    host.assertNothingLeft([FOREIGN]);
  });
}

function growth(): void {
  it("takes a new connection, so not while the volume is used; nothing is lost", async () => {
    const grown = await host.attached();
    const { volumeID } = grown;
    const { signal } = host.limits();
    const mount = { ...grown, mountPoint: MOUNT, signal };
    const expand = (mountPoint?: string) =>
      host.executor.expand?.(grown, mountPoint, host.limits());
    await host.connect(grown);
    await host.executor.mount?.({ ...mount, fileSystem: { type: "ext4", isAsked: true } });
    await sh(`echo before > ${MOUNT}/file && sync`);
    await expand(MOUNT);
    await host.server.storage.service(SERVICE).volumeExpand(volumeID, 2 * GIB, CALLER);
    await sh(`echo after >> ${MOUNT}/file && sync`);
    await assert.rejects(async () => expand(MOUNT), {
      code: "failed-precondition",
      message: /has grown on the server.*with a new connection only, while the mount .* uses it/,
    });
    await host.executor.unmount?.({ ...mount, removeFolder: false });
    await expand();
    assert.equal(await sizeOf(grown), 2 * GIB);
    deviceOf(grown);
    await host.executor.mount?.(mount);
    assert.equal(await sh(`cat ${MOUNT}/file`), "before\nafter\n");
    assert.ok(Number(await run("stat", "-f", "-c", "%b", MOUNT)) * 4096 > 1.7 * GIB);
    await host.executor.unmount?.({ ...mount, removeFolder: false });
    await host.disconnect(grown);
    host.assertNothingLeft([FOREIGN]);
  });
}

insideOneMachine(import.meta.url, { limitMs: 1_700_000 }, () => {
  describe("a volume by the kernel's NBD client", { timeout: 1_600_000 }, () => {
    before(async () => {
      shInOneGo("modprobe nbd && truncate -s 16M /suite/foreign");
      shInOneGo("qemu-nbd --fork -t -f raw -x disk -k /suite/foreign.sock /suite/foreign");
      shInOneGo(`nbd-client -unix /suite/foreign.sock -N disk /dev/${FOREIGN}`);
      await host.start();
      one = await host.attached();
      other = await host.attached();
    });
    // What it serves goes with the machine.
    after(() => host.stop());
    describe("in its life", life);
    describe("leftovers", leftovers);
    describe("refusals", refusals);
    describe("growth", growth);
  });
});
