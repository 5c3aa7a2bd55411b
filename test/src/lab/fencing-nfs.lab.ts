/**
 * A volume is taken from a host that writes to it over NFS: after the answer no write of that host arrives. The
 * writers are the kernel's client on another machine; whether something was written the volume itself says.
 * LIBSTORAGE_FENCING_RUNS says how often.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fencingRuns, summary } from "../exporters/fencing-runs.js";
import type { LabProcess } from "./channel.js";
import { until } from "./limit.js";
import { NfsHosts, ROOT, SERVICE } from "./nfs-hosts.js";

/** Volumes that are fenced at the same time. */
const LANES = 3;

/** Who waits in the kernel, and for what. */
const WAITING = `cat /proc/fs/nfsd/clients/*/info; exportfs -s; grep libstorage /proc/mounts
  for task in /proc/[0-9]*/task/*; do
    grep -q '^State:.D' $task/status && { cat $task/comm; cat $task/stack; }
  done; true`;

const runs = fencingRuns(2);
let hosts: NfsHosts;
let late = 0;
let files = 0;
let slowest = 0;

/** Several, which write as fast as they can, each in another way. */
function startWriters(at: string): LabProcess[] {
  const { b } = hosts;
  return [
    b.start(`exec dd if=/dev/urandom of=${at}/sync bs=4k oflag=sync,append conv=notrunc`),
    b.start(`exec dd if=/dev/urandom of=${at}/direct bs=64k oflag=direct conv=notrunc`),
    b.start(`exec dd if=/dev/zero of=${at}/cached bs=1M count=40 conv=notrunc`),
    b.start(
      `i=0; while i=$((i+1)); do echo $i > ${at}/new-$((i%50)); sync ${at}/new-$((i%50)); done`,
    ),
  ];
}

interface Fenced {
  readonly id: string;
  readonly at: string;
  readonly writers: readonly LabProcess[];
}

async function startWriting(id: string, round: number): Promise<Fenced> {
  const at = `/mnt/${id}-${round}`;
  await hosts.mount(await hosts.attach(id), at);
  const writers = startWriters(at);
  await until("they write", async () => {
    const count = Number(await hosts.a.run(`ls ${ROOT}/vol/${id} | wc -l`));
    if (count > 3) files += count;
    return count > 3;
  });
  return { id, at, writers };
}

/** @returns what stood in it when the answer came */
async function preempt({ id }: Fenced): Promise<string> {
  const began = Date.now();
  // The disk of the storage host is slow, and several writers sync to it.
  const limitMs = 300_000;
  try {
    await hosts.a.run(`libstorage volume attach --force ${id}`, { limitMs });
  } catch (error) {
    process.stderr.write(`${await hosts.a.run(WAITING)}\n`);
    throw error;
  }
  slowest = Math.max(slowest, Date.now() - began);
  return hosts.stateOf(id);
}

async function expectSame(fenced: readonly Fenced[], then: readonly string[], why: string) {
  const now = await Promise.all(fenced.map(({ id }) => hosts.stateOf(id)));
  const changed = now.filter((state, index) => state !== then[index]).length;
  if (changed > 0) process.stderr.write(`${why}: ${changed}\n`);
  late += changed;
}

async function fenceAll(ids: readonly string[], round: number): Promise<void> {
  const { a, b } = hosts;
  const fenced = await Promise.all(ids.map((id) => startWriting(id, round)));
  const then = await Promise.all(fenced.map(preempt));
  await sleep(3_000);
  await expectSame(fenced, then, "a write came after the answer");
  // Even when the old holder writes back what it still has, and comes again after the new one has left.
  for (const { id } of fenced) {
    await a.run(`libstorage volume detach ${id}`);
    await hosts.attach(id);
  }
  await b.attempt("sync", { limitMs: 60_000 });
  await sleep(1_000);
  await expectSame(fenced, then, "an old handle came to life again");
  for (const { id, at, writers } of fenced) {
    await hosts.detach(id);
    for (const writer of writers) writer.signal("SIGKILL");
    await b.run(`umount -l ${at}`);
    await a.run(`rm -rf ${ROOT}/vol/${id}/*`);
  }
}

describe("fencing nfs", { timeout: 3_600_000 }, () => {
  before(async () => {
    hosts = await NfsHosts.start();
  });
  after(async () => hosts?.remove());

  it(`lets no write of a preempted holder arrive, ${runs} times`, async () => {
    const { b } = hosts;
    const other = await hosts.create("other");
    await hosts.mount(await hosts.attach(other), "/mnt/other");
    const bystander = b.start(
      "while echo still > /mnt/other/still && sync /mnt/other/still; do :; done",
    );
    const lanes = Math.min(LANES, runs);
    const ids = await Promise.all(
      Array.from({ length: lanes }, (_, lane) => hosts.create(`fenced-${lane}`)),
    );
    for (let left = runs; left > 0; left -= lanes) {
      await fenceAll(ids.slice(0, left), left);
      process.stderr.write(`fencing nfs: ${Math.max(0, left - lanes)} to begin\n`);
    }
    process.stderr.write(`${summary("nfs", runs, late, files)}; the slowest took ${slowest} ms\n`);
    assert.equal(late, 0);
    // Another volume of the same host is written all the time.
    await b.run(`kill -0 ${await bystander.pid}`);
    bystander.signal("SIGKILL");
    for (const volumeID of ids)
      await hosts.client.call("volumeRemove", { ...SERVICE, volumeID }, undefined);
  });
});
