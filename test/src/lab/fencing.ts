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
/** Volumes that are fenced at the same time, so that one login takes as long as several. */
const LANES = 8;

/** Two processes, each in its part of the volume, write blocks of 4 KiB that say their number, past all caches. */
const writer = (device: string): string =>
  `for part in 0 1; do
     (while seq -f '%-4095.0f' 1 4000 | dd of=/dev/${device} bs=4k seek=$((part * 4000)) oflag=direct iflag=fullblock conv=notrunc status=none; do :; done) &
   done`;

interface Fenced {
  readonly id: string;
  /** What had arrived when the writer began, just before the preemption, and at its answer. */
  readonly first: number;
  readonly before: string;
  readonly atAnswer: string;
}

export function fencingSuite(exporter: string): void {
  const runs = fencingRuns(2);
  let hosts: Hosts;
  let initiator: Initiator;
  let storage: RemoteStorage;
  let late = 0;
  let writes = 0;
  let done = 0;

  const firstOf = async (id: string): Promise<number> => countOf(await storage.writes(id));

  async function preempted(id: string, first: number): Promise<Fenced> {
    await sleep(Math.random() * 200);
    const before = await storage.writes(id);
    return { id, first, before, atAnswer: await storage.preempt(id, NEW) };
  }

  async function check({ id, first, before, atAnswer }: Fenced): Promise<void> {
    const afterwards = await storage.writes(id);
    if (afterwards !== atAnswer) {
      late += 1;
      process.stderr.write(`late: ${atAnswer} at the answer, ${afterwards} afterwards\n`);
    }
    // On a busy host the machine of the writer may just have had no time: then nothing was proven.
    if (atAnswer === before && afterwards === atAnswer) return;
    done += 1;
    writes += countOf(atAnswer) - first;
  }

  async function fenceAll(ids: readonly string[]): Promise<void> {
    const attachments = await Promise.all(ids.map((id) => storage.attach(id, OLD)));
    const devices = await initiator.loginAll(attachments);
    const firsts = await Promise.all(ids.map(firstOf));
    const writing = hosts.b.start(`${devices.map(writer).join("\n")}\nwait`);
    await until("all are written", async () => {
      const counts = await Promise.all(ids.map(firstOf));
      return counts.every((count, index) => count > (firsts[index] ?? 0) + 40);
    });
    const fenced = await Promise.all(ids.map((id, index) => preempted(id, firsts[index] ?? 0)));
    await sleep(1_000);
    await Promise.all(fenced.map(check));
    writing.signal("SIGKILL");
    await initiator.logoutAll(attachments);
    for (const id of ids) await storage.detach(id, NEW);
  }

  describe(`fencing ${exporter}`, { timeout: 3_500_000 }, () => {
    before(async () => {
      hosts = await startTwoHosts({ a: { diskMiB: [1024] }, b: {} });
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
      const lanes = Array.from({ length: Math.min(LANES, runs) });
      const ids = await Promise.all(lanes.map(() => storage.create(64 * MIB)));
      for (let tries = 0; done < runs; tries += ids.length) {
        assert.ok(tries < runs * 2 + LANES, "the writers are idle most of the time");
        await fenceAll(ids.slice(0, runs - done));
        process.stderr.write(`fencing ${exporter}: ${runs - done} to go\n`);
      }
      for (const id of ids) await storage.remove(id);
      context.diagnostic(summary(exporter, done, late, writes));
      // Diagnostics are not shown by every reporter.
      process.stderr.write(`${summary(exporter, done, late, writes)}\n`);
      assert.equal(late, 0);
    });
  });
}

/** The kernel's count of writes in what a session tells. */
function countOf(writes: string): number {
  return Number(/^\d+/.exec(writes)?.[0] ?? 0);
}
