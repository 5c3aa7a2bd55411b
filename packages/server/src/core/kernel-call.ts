/**
 * What a command would ask the kernel for, without the command: an ioctl(2) of an open folder, in a thread of
 * its own, in the fifth of the time that starting a process takes.
 */
import { closeSync, constants, openSync } from "node:fs";

/** The number, and the argument as the kernel's headers have it for 64 bits and the lowest byte first. */
export interface KernelCall {
  /** Opened for it; no link. */
  readonly folder: string;
  readonly request: number;
  readonly argument: Uint8Array;
  /** A folder, no link, whose descriptor is written over the first 8 bytes of the argument. */
  readonly source?: string;
  /** Where the kernel writes a 0 into the argument when there is no more to tell than that all is well. */
  readonly zeroAt?: number;
}

/** Half of the threads that Node has: a file system that hangs shall not hold up the work on others. */
const MAX_CALLS = 2;

/** Those with such numbers and arguments; powerpc has others. */
const ARCHITECTURES: readonly string[] = ["arm64", "x64"];

type Ioctl = (fd: number, request: number, argument: Uint8Array) => Promise<number>;

let ioctl: Promise<Ioctl> | undefined;
let calls = 0;

/** @throws where functions of the C library cannot be called */
async function open(): Promise<Ioctl> {
  const { DataType, load, open: openLibrary } = await import("ffi-rs");
  const { I32: int, U64: long, U8Array: bytes } = DataType;
  // What this process has loaded already.
  const library = "self";
  openLibrary({ library, path: "" });
  return (fd, request, argument) =>
    load({
      library,
      funcName: "ioctl",
      retType: int,
      paramsType: [int, long, bytes],
      paramsValue: [fd, request, argument],
      runInNewThread: true,
    });
}

/** It ends when the kernel does, whoever waits for it. @returns whether it was done; if not, nothing was */
export async function askKernel(call: KernelCall): Promise<boolean> {
  if (calls >= MAX_CALLS || !ARCHITECTURES.includes(process.arch)) return false;
  calls += 1;
  const opened: number[] = [];
  const openFolder = (path: string): number => {
    const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    opened.push(fd);
    return fd;
  };
  try {
    const ask = await (ioctl ??= open());
    const folder = openFolder(call.folder);
    const argument = Buffer.from(call.argument);
    if (call.source !== undefined) argument.writeBigInt64LE(BigInt(openFolder(call.source)));
    const answer = await ask(folder, call.request, argument);
    return answer === 0 && (call.zeroAt === undefined || argument[call.zeroAt] === 0);
  } catch {
    return false;
  } finally {
    for (const fd of opened) closeSync(fd);
    calls -= 1;
  }
}
