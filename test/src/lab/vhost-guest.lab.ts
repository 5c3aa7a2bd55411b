/** A volume as a disk of a virtual machine, over vhost-user-blk: the server and its storage daemon here, the guest in a machine. */
import assert from "node:assert/strict";
import { readFileSync, readdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { after, before, describe } from "node:test";
import type { Export, ExportAddRequest } from "@libstorage/model";
import { DoorHost, MIB, SERVICE, through } from "../exporters/door-host.js";
import { makeFolder } from "../client/fixture.js";
import { chain } from "./e2e-steps.js";
import { startMachine } from "./machine.js";
import type { Machine } from "./machine.js";

let folder = "";
let host: DoorHost;
let volumeID = "";
let door: Export;
let guest: Machine;
let disk = "";

/** Fills 4 MiB of the guest's disk with one byte, past its caches. */
async function writes(byte: number, atMiB: number): Promise<void> {
  const octal = byte.toString(8).padStart(3, "0");
  await guest.run(
    `head -c 4M /dev/zero | tr '\\0' '\\${octal}' | dd of=${disk} bs=1M seek=${atMiB} iflag=fullblock oflag=direct conv=fsync,notrunc status=none`,
  );
}

/** Whether 4 MiB of the guest's disk have this byte alone. */
async function holds(byte: number, atMiB: number): Promise<boolean> {
  const octal = byte.toString(8).padStart(3, "0");
  const count = await guest.run(
    `dd if=${disk} bs=1M count=4 skip=${atMiB} iflag=direct,fullblock status=none | tr -cd '\\${octal}' | wc -c`,
  );
  return Number(count) === 4 * MIB;
}

async function withNbd(act: (nbd: Export) => Promise<void>): Promise<void> {
  const nbd = await host.add({ volumeID, type: "nbd", id: "beside", writable: true });
  await act(nbd);
  await host.remove("beside");
}

async function boots(): Promise<void> {
  await withNbd((nbd) => through(nbd, "write -P 17 4M 4M", "flush"));
  const wanted = { volumeID, type: "vhost-user-blk", id: "guest", writable: true, numQueues: 2 };
  door = await host.add(wanted as ExportAddRequest);
  guest = await startMachine({ name: "guest", vhostSockets: [door.deviceName] });
  disk = `/dev/${await guest.run("lsblk -bdno NAME,SIZE | awk '$2 == 1073741824 { print $1 }'")}`;
  assert.match(disk, /^\/dev\/vd[a-z]$/);
}

async function reads(): Promise<void> {
  assert.ok(await holds(17, 4));
  await writes(69, 12);
  assert.ok(await holds(69, 12));
  assert.ok(await holds(17, 4));
  // A file system on it, as a guest would have.
  await guest.run(`mkfs.ext4 -q -E offset=${64 * 1024 ** 2} ${disk} 200M`);
}

async function isUsed(): Promise<void> {
  const [{ sessions } = { sessions: [] }] = await host.exports();
  assert.match(JSON.stringify(sessions), /a virtual machine at .*\.sock/);
  await assert.rejects(host.remove("guest"), {
    code: "failed-precondition",
    message: /in use by a virtual machine at/,
  });
  const wanted = { volumeID, type: "nbd", id: "other", writable: true } as const;
  await assert.rejects(host.add(wanted), { code: "failed-precondition" });
}

async function isLimited(): Promise<void> {
  const timed = async (): Promise<number> => {
    const started = performance.now();
    await writes(70, 16);
    await writes(71, 20);
    return performance.now() - started;
  };
  const params = { service: SERVICE, exportID: "guest" };
  await host.service.exportUpdate(params, { throttle: { bpsTotal: 1024 ** 2 } as never }, {});
  const slow = await timed();
  await host.service.exportUpdate(params, { throttle: { bpsTotal: 0 } as never }, {});
  const fast = await timed();
  assert.ok(slow > 3000 && fast < slow, `${slow} ms, then ${fast} ms`);
}

/** The guest is told of a disk without a cache, so it flushes nothing. */
async function outlives(): Promise<void> {
  assert.equal(
    await guest.run(`cat /sys/block/${basename(disk)}/queue/write_cache`),
    "write through",
  );
  await writes(72, 28);
  const pidFile = readdirSync(folder, { recursive: true, encoding: "utf8" }).find((name) =>
    name.endsWith("/pid"),
  );
  const pid = Number(readFileSync(join(folder, pidFile ?? ""), "utf8"));
  process.kill(pid, "SIGKILL");
  assert.ok(await holds(72, 28));
  await writes(73, 32);
  assert.ok(await holds(73, 32));
}

async function ends(): Promise<void> {
  await guest.remove();
  await host.remove("guest");
  await withNbd((nbd) =>
    through(
      nbd,
      "read -P 17 4M 4M",
      "read -P 69 12M 4M",
      "read -P 70 16M 4M",
      "read -P 71 20M 4M",
      "read -P 72 28M 4M",
    ),
  );
}

describe("vhost-user-blk with a guest", { timeout: 900_000 }, () => {
  const step = chain();
  before(async () => {
    folder = await makeFolder();
    host = await DoorHost.open(folder);
    volumeID = await host.volume("qcow2");
  });
  after(async () => {
    await guest?.remove();
    for (const { id = "" } of (await host?.exports()) ?? []) await host.remove(id, "hard");
    await host?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  step("boots with the volume as its disk", boots);
  step("reads what was written at another door, and writes", reads);
  step("is known by its socket, and nobody takes the disk away or writes beside it", isUsed);
  step("is slowed down, and let go again, while it writes", isLimited);
  step("goes on over the next daemon when the first is killed, and has lost no write", outlives);
  step("leaves what it wrote for other doors", ends);
});
