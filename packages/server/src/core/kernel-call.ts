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
let running = 0;

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

async function ask({ folder, source, request, argument, zeroAt }: KernelCall): Promise<boolean> {
  const opened: number[] = [];
  const openFolder = (path: string): number => {
    const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    opened.push(fd);
    return fd;
  };
  try {
    const call = await (ioctl ??= open());
    const fd = openFolder(folder);
    const given = Buffer.from(argument);
    if (source !== undefined) given.writeBigInt64LE(BigInt(openFolder(source)));
    const answer = await call(fd, request, given);
    return answer === 0 && (zeroAt === undefined || given[zeroAt] === 0);
  } catch {
    return false;
  } finally {
    for (const one of opened) closeSync(one);
  }
}

/**
 * One after another. They end when the kernel does, whoever waits for it.
 * @returns whether all were done; if not, the first that was not did nothing
 */
export async function askKernel(calls: readonly KernelCall[]): Promise<boolean> {
  if (running >= MAX_CALLS || !ARCHITECTURES.includes(process.arch)) return false;
  running += 1;
  try {
    for (const call of calls) if (!(await ask(call))) return false;
    return true;
  } finally {
    running -= 1;
  }
}
