/**
 * ioctl(2) by the spawner: what a command would be started for, in the tenth of its time. A file system
 * that hangs then holds up a thread of the spawner and nobody else.
 */
import { closeSync, constants, openSync } from "node:fs";
import type { KernelCall } from "./spawner-messages.js";

/** The threads that Node has for this; with all of them waiting, commands are started as ever. */
const MAX_CALLS = 4;

/** Those with the numbers and the order of bytes that callers use; powerpc has others. */
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

/** @returns whether it was done; if not, nothing was */
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
