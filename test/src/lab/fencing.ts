/**
 * A volume is taken from a host that writes to it: after the answer no write of that host arrives. The host is a
 * machine of its own, with the kernel's initiator; whether something was written the kernel of the storage host says.
 * LIBSTORAGE_FENCING_RUNS says how often.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fencingRuns, summary } from "../exporters/fencing-runs.js";
import type { Holder } from "../exporters/storage-session.js";
import { Initiator } from "./initiator.js";
import { until } from "./limit.js";
import { startTwoHosts } from "./network.js";
import type { Hosts } from "./network.js";
import { RemoteStorage } from "./remote-storage.js";

const MIB = 1024 ** 2;
const OLD: Holder = {
  id: "b",
  initiatorName: "iqn.2026-01.local.test:b",
  addresses: ["10.99.0.2"],
};
const NEW: Holder = { id: "c", initiatorName: "iqn.2026-01.local.test:c" };
/** Volumes that are fenced at the same time. */
const LANES = 4;

/** Four processes, each in its part of the volume, write blocks of 4 KiB that say their number, past all caches. */
const writer = (device: string): string =>
  `for part in 0 1 2 3; do
     (while seq -f '%-4095.0f' 1 4000 | dd of=/dev/${device} bs=4k seek=$((part * 4000)) oflag=direct iflag=fullblock conv=notrunc status=none; do :; done) &
   done; wait`;

export function fencingSuite(exporter: string): void {
  const runs = fencingRuns(2);
  let hosts: Hosts;
  let initiator: Initiator;
  let storage: RemoteStorage;
  let late = 0;
  let writes = 0;
  let idle = 0;
  let left = runs;

  /** @returns how many writes had arrived before the answer, or undefined when the writer was idle at its end */
  async function fenceOnce(id: string): Promise<number | undefined> {
    const attachment = await storage.attach(id, OLD);
    const device = await initiator.login(attachment);
    const first = countOf(await storage.writes(id));
    const writing = hosts.b.start(writer(device));
    await until("it writes", async () => countOf(await storage.writes(id)) > first + 40);
    await sleep(Math.random() * 200);
    const before = await storage.writes(id);
    const atAnswer = await storage.preempt(id, NEW);
    await sleep(1_000);
    const afterwards = await storage.writes(id);
    if (afterwards !== atAnswer) {
      late += 1;
      process.stderr.write(`late: ${atAnswer} at the answer, ${afterwards} afterwards\n`);
    }
    writing.signal("SIGKILL");
    await initiator.logout(attachment);
    await storage.detach(id, NEW);
    // On a busy host the machine of the writer may just have had no time: then nothing was proven.
    if (atAnswer === before && afterwards === atAnswer) return undefined;
    return countOf(atAnswer) - first;
  }

  async function lane(): Promise<void> {
    const id = await storage.create(64 * MIB);
    while (left > 0) {
      left -= 1;
      const written = await fenceOnce(id);
      if (written === undefined) {
        idle += 1;
        left += 1;
        assert.ok(idle <= runs, "the writer is idle most of the time");
        continue;
      }
      writes += written;
      if (left % 10 === 0) process.stderr.write(`fencing ${exporter}: ${left} to begin\n`);
    }
    await storage.remove(id);
  }

  describe(`fencing ${exporter}`, { timeout: 1_700_000 }, () => {
    before(async () => {
      hosts = await startTwoHosts({ a: { diskMiB: [512] }, b: {} });
      initiator = await Initiator.start(hosts.b, OLD.initiatorName ?? "", 1);
      await hosts.a.run("modprobe dm-mod && pvcreate -q /dev/vdc && vgcreate -q vg0 /dev/vdc");
      storage = await RemoteStorage.start(hosts.a, {
        folder: "/srv/storage",
        kind: "lv",
        exporter,
        config: { chap: { mode: "none" } },
      });
    });
    after(async () => hosts?.remove());

    it(`lets no write arrive after the answer, ${runs} times`, async (context) => {
      await Promise.all(Array.from({ length: Math.min(LANES, runs) }, lane));
      context.diagnostic(summary(exporter, runs, late, writes));
      // Diagnostics are not shown by every reporter.
      process.stderr.write(`${summary(exporter, runs, late, writes)}\n`);
      assert.equal(late, 0);
    });
  });
}

/** The kernel's count of writes in what a session tells. */
function countOf(writes: string): number {
  return Number(/^\d+/.exec(writes)?.[0] ?? 0);
}
