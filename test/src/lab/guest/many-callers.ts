/**
 * Runs in a machine: callers that attach and detach volumes of this host in a random order, and look each time whether
 * the device is the volume's own. Argument: `ManyOptions`. Prints `{ progress }` now and then, and `{ report }` in the end.
 */
import { constants } from "node:fs";
import { open, readFile, realpath } from "node:fs/promises";
import { basename } from "node:path";
import { openOwnHost } from "./own-host.js";

export interface ManyOptions {
  readonly service: string;
  readonly volumes: number;
  readonly callers: number;
  readonly seed: number;
  /** No attach begins later, counted from the first. */
  readonly limitMs: number;
  /** Nor when there have been so many attaches and detaches. */
  readonly operations: number;
}

export interface ManyReport {
  readonly volumes: number;
  /** How many of them have been attached. */
  readonly touched: number;
  readonly attaches: number;
  readonly detaches: number;
  /** How many were attached at once, at most. */
  readonly most: number;
  readonly seconds: number;
  /** What must not be; each with what was found. */
  readonly wrong: readonly string[];
}

/** One caller at a time has it. */
interface Mine {
  readonly id: string;
  isBusy: boolean;
  isAttached: boolean;
  /** How often it has been marked; 0 is a blank device. */
  marks: number;
  serial?: string;
}

const BLOCK = 4096;
/** Of all steps: fewer than half, so that there are always more attached. */
const DETACHES = 0.45;
const {
  service,
  volumes: wanted,
  callers,
  seed,
  ...limits
} = JSON.parse(process.argv[2] ?? "{}") as ManyOptions;

/** Numbers from 0 to 1 that are the same for the same seed. */
function randomFrom(start: number): () => number {
  let state = start >>> 0;
  return () => {
    // Marsaglia's xorshift, 32 bits.
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

const random = randomFrom(seed);
const { client, volumes: host } = await openOwnHost({
  service,
  // Eight handshakes at once take a slow machine long.
  connectTimeoutMs: 120_000,
  responseTimeoutMs: 300_000,
  attachTimeoutMs: 240_000,
});

const all: Mine[] = [];
const wrong: string[] = [];
const owners = new Map<string, string>();
let attaches = 0;
let detaches = 0;
let most = 0;

const markOf = ({ id, marks }: Mine): Buffer => {
  const block = Buffer.alloc(BLOCK);
  if (marks > 0) block.write(`${id} ${marks}`);
  return block;
};
const textOf = (block: Buffer): string =>
  block.toString("latin1").replaceAll("\0", "").slice(0, 80);

/** What the device says of itself, as the kernel asked it when it appeared: page 0x80 after its head of 4 bytes. */
async function serialOf(device: string): Promise<string> {
  const page = await readFile(`/sys/block/${basename(device)}/device/vpd_pg80`);
  return page.subarray(4).toString("latin1").replaceAll("\0", "").trim();
}

async function look(one: Mine, link: string, named: string): Promise<void> {
  const device = await realpath(link);
  const serial = await serialOf(device);
  const owner = owners.get(serial);
  if (owner !== undefined && owner !== one.id)
    wrong.push(`${device} of ${one.id} shows the serial ${serial} of ${owner}`);
  if (one.serial !== undefined && one.serial !== serial)
    wrong.push(`${device} of ${one.id} shows ${serial}, and showed ${one.serial} before`);
  if (serial !== named) wrong.push(`${device} of ${one.id} shows ${serial}, it should ${named}`);
  owners.set(serial, one.id);
  one.serial = serial;
  const handle = await open(device, constants.O_RDWR | constants.O_SYNC);
  try {
    const block = Buffer.alloc(BLOCK);
    await handle.read(block, 0, BLOCK, 0);
    if (!block.equals(markOf(one)))
      wrong.push(`${device} of ${one.id} begins with "${textOf(block)}", not ${one.marks}`);
    one.marks += 1;
    await handle.write(markOf(one), 0, BLOCK, 0);
  } finally {
    await handle.close();
  }
}

async function attach(one: Mine): Promise<void> {
  const { attachments = [] } = await host.attach(one.id, false, {});
  one.isAttached = true;
  attaches += 1;
  most = Math.max(most, all.filter(({ isAttached }) => isAttached).length);
  const [own] = attachments;
  if (own === undefined || attachments.length > 1)
    wrong.push(`${one.id} has ${attachments.length} attachments`);
  if (own !== undefined) await look(one, own.deviceName, own.fields?.["serial"] ?? "none");
}

async function detach(one: Mine): Promise<void> {
  await host.detach(one.id, false, {});
  one.isAttached = false;
  detaches += 1;
}

async function remove({ id }: Mine): Promise<void> {
  await client.volumeRemove({ service, volumeID: id }, undefined, {});
}

async function withOne(one: Mine, act: (one: Mine) => Promise<void>): Promise<void> {
  one.isBusy = true;
  try {
    await act(one);
  } catch (error) {
    wrong.push(`${act.name} ${one.id}: ${(error as Error).message}`);
  } finally {
    one.isBusy = false;
  }
}

/** At random: one to detach, or one to attach; those come first that never were. */
function next(): Mine | undefined {
  const free = all.filter(({ isBusy }) => !isBusy);
  const attached = free.filter(({ isAttached }) => isAttached);
  const fresh = free.filter(({ marks }) => marks === 0);
  const isDetach = attached.length > 0 && random() < DETACHES;
  const among = isDetach ? attached : fresh.length > 0 ? fresh : free;
  return among[Math.floor(random() * among.length)];
}

/** Runs the work of every caller until it answers false. */
async function byCallers(work: () => Promise<boolean>): Promise<void> {
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (await work());
    }),
  );
}

const started = performance.now();
const progress = setInterval(() => {
  const line = { progress: { volumes: all.length, attaches, detaches, wrong } };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}, 15_000);
let asked = 0;
await byCallers(async () => {
  if (asked === wanted) return false;
  asked += 1;
  const { id } = await client.volumeCreate({ service }, { name: `many-${asked}`, size: 1 }, {});
  all.push({ id, isBusy: false, isAttached: false, marks: 0 });
  return true;
});
const begun = performance.now();
await byCallers(async () => {
  const isOver =
    performance.now() - begun > limits.limitMs || attaches + detaches >= limits.operations;
  if (isOver || wrong.length > 10) return false;
  const one = next();
  if (one !== undefined) await withOne(one, one.isAttached ? detach : attach);
  return true;
});
const touched = all.filter(({ marks }) => marks > 0).length;
await byCallers(async () => {
  const one = all.find(({ isBusy, isAttached }) => !isBusy && isAttached);
  if (one === undefined || wrong.length > 20) return false;
  await withOne(one, detach);
  return true;
});
await byCallers(async () => {
  const one = all.pop();
  if (one !== undefined) await withOne(one, remove);
  return one !== undefined;
});
clearInterval(progress);
client.close();
const seconds = Math.round((performance.now() - started) / 1000);
const report: ManyReport = { volumes: asked, touched, attaches, detaches, most, seconds, wrong };
process.stdout.write(`${JSON.stringify({ report })}\n`);
