/**
 * Whether a device is zero wherever anything leaves a mark of itself. Read by this process past the page cache,
 * where commands would have to be started that drop the cache, and look for one mark after the other.
 */
import { constants } from "node:fs";
import { open, stat } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { readSmallFile } from "../executor/small-file.js";
import { numbersIn } from "./device-numbers.js";

// The compiler's library has it only for browsers.
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number }) => { readonly buffer: ArrayBuffer };
};

const KIB = 1024;
const MIB = 1024 * KIB;

/** Direct reads are of whole blocks, and no disk's are larger. */
const BLOCK_BYTES = 4 * KIB;

/**
 * Where marks stand, as read with strace from all that libblkid 2.38 looks at on an empty device: in the first
 * MiB and right behind it, at 2 and 4 MiB, and in the last 1.6 MiB. Btrfs keeps copies of its own at 64 MiB and
 * 256 GiB, which it does not look at.
 */
const FIRST_BYTES = MIB + BLOCK_BYTES;
const LAST_BYTES = 2 * MIB;
const PLACES: readonly number[] = [2 * MIB, 4 * MIB, 64 * MIB, 256 * KIB * MIB];

const ZEROS = new Uint8Array(LAST_BYTES + BLOCK_BYTES);

/** Threads that read files are few, and a device may keep those that read it waiting for minutes. */
const MOST_AT_ONCE = 1;
let running = 0;

interface Limit {
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

/** @returns undefined when nothing of it could be told in time */
export async function isZeroWhereMarked(
  device: string,
  { signal, timeoutMs }: Limit,
): Promise<boolean | undefined> {
  if (running >= MOST_AT_ONCE || signal.aborted) return undefined;
  running += 1;
  const looking = look(device)
    .catch(() => undefined)
    .finally(() => {
      running -= 1;
    });
  let end: () => void = () => {};
  const tooLate = new Promise<undefined>((resolve) => (end = () => resolve(undefined)));
  const timer = setTimeout(end, timeoutMs);
  signal.addEventListener("abort", end, { once: true });
  try {
    return await Promise.race([looking, tooLate]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
  }
}

async function look(device: string): Promise<boolean | undefined> {
  const { rdev } = await stat(device);
  const { major, minor } = numbersIn(rdev);
  const sectors = Number(readSmallFile(`/sys/dev/block/${major}:${minor}/size`) ?? 0);
  // Of 512 bytes, whatever the device's own are.
  const sizeBytes = sectors * 512;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < FIRST_BYTES + LAST_BYTES) return undefined;
  const last = Math.floor((sizeBytes - LAST_BYTES) / BLOCK_BYTES) * BLOCK_BYTES;
  const places = PLACES.filter((at) => at < last).map((at): Span => [at, BLOCK_BYTES]);
  const handle = await open(device, constants.O_RDONLY | constants.O_DIRECT);
  try {
    // The large parts at the same time.
    const parts = [[[0, FIRST_BYTES], ...places] as const, [[last, sizeBytes - last]] as const];
    const all = await Promise.all(parts.map((spans) => areZero(handle, spans)));
    return all.every(Boolean);
  } finally {
    await handle.close();
  }
}

type Span = readonly [at: number, length: number];

async function areZero(handle: FileHandle, spans: readonly Span[]): Promise<boolean> {
  const memory = pages(LAST_BYTES + BLOCK_BYTES);
  for (const [at, length] of spans) if (!(await isZero(handle, memory, at, length))) return false;
  return true;
}

async function isZero(
  handle: FileHandle,
  memory: Uint8Array,
  at: number,
  length: number,
): Promise<boolean> {
  for (let done = 0; done < length;) {
    const wanted = Math.min(memory.length, length - done);
    const { bytesRead } = await handle.read(memory, 0, wanted, at + done);
    if (bytesRead === 0) throw new Error("the device has ended");
    if (Buffer.compare(memory.subarray(0, bytesRead), ZEROS.subarray(0, bytesRead)) !== 0)
      return false;
    done += bytesRead;
  }
  return true;
}

/** Direct reads go to memory that begins with a page, as that of WebAssembly does. */
function pages(bytes: number): Uint8Array {
  const page = 64 * KIB;
  return new Uint8Array(new WebAssembly.Memory({ initial: Math.ceil(bytes / page) }).buffer);
}
