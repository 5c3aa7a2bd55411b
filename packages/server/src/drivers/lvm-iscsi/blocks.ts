/** What is done to the blocks of a device: dd(1) of coreutils, blkdiscard(8) and wipefs(8) of util-linux. */
import { readFileSync } from "node:fs";
import type { OpContext } from "../../core/driver.js";
import { NO_TIME_LIMIT_MS } from "../folders/time-limit.js";

const MIB = 1024 ** 2;
const BLOCK = 4 * MIB;
const POLL_MS = 500;

/** What a process has written so far. @see proc(5), /proc/pid/io */
function writtenBytes(pid: number): number | undefined {
  try {
    const written = /^wchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, "latin1"))?.[1];
    return written === undefined ? undefined : Number(written);
  } catch {
    return undefined;
  }
}

/** Copies the first `bytes` of a device to another, and tells how far it is. Durable when it answers. */
export async function copyBlocks(
  from: string,
  to: string,
  bytes: number,
  context: OpContext,
): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const onStart = (pid: number): void => {
    context.progress(0, bytes, "bytes");
    timer = setInterval(() => {
      const written = writtenBytes(pid);
      if (written !== undefined) context.progress(Math.min(written, bytes), bytes, "bytes");
    }, POLL_MS);
  };
  const direct = ["iflag=direct,count_bytes", "oflag=direct", "conv=fsync,nocreat"];
  const args = [
    `if=${from}`,
    `of=${to}`,
    `bs=${BLOCK}`,
    `count=${bytes}`,
    ...direct,
    "status=none",
  ];
  try {
    await context.exec("dd", args, context.signal, { timeoutMs: NO_TIME_LIMIT_MS, onStart });
    context.progress(bytes, bytes, "bytes");
  } finally {
    clearInterval(timer);
  }
}

/** Zeros, by the disk itself where it can. Refused while the device is in use. */
export async function zeroBlocks(
  device: string,
  from: number,
  bytes: number,
  context: OpContext,
): Promise<void> {
  const range = ["--offset", String(from), "--length", String(bytes)];
  const options = { timeoutMs: NO_TIME_LIMIT_MS };
  await context.exec("blkdiscard", ["--zeroout", ...range, device], context.signal, options);
}

/** Zeros over the whole of a device. */
export async function zeroAll(device: string, { exec, signal }: OpContext): Promise<void> {
  await exec("blkdiscard", ["--zeroout", device], signal, { timeoutMs: NO_TIME_LIMIT_MS });
}

export async function discardBlocks(device: string, context: OpContext): Promise<void> {
  await context.exec("blkdiscard", [device], context.signal, { timeoutMs: NO_TIME_LIMIT_MS });
}

/** So that nothing on a new device looks like a file system, a partition table or a part of a RAID. */
export async function wipeSigns(device: string, bytes: number, context: OpContext): Promise<void> {
  const { exec, signal } = context;
  await exec("wipefs", ["--all", "--quiet", device], signal);
  await zeroBlocks(device, 0, Math.min(bytes, BLOCK), context);
}
