/**
 * The device file of the vfs executor, section 18 of the contract: `<vfs.root>/dev`, a line per device,
 * `/dev/xvdX` or `/dev/xvdX=MOUNTPOINT`.
 */
import * as fs from "node:fs/promises";
import { dirname } from "node:path";
import { readSmallFile } from "./small-file.js";

export interface DeviceLine {
  readonly device: string;
  /** Empty when the device is free. */
  readonly mountPoint: string;
  readonly hasEquals: boolean;
}

const FIRST_CONTENT = ["/dev/xvda", "/dev/xvdb", "/dev/xvdc", "/dev/xvdd", ""].join("\n");

export function parseDeviceFile(text: string): readonly DeviceLine[] {
  return text
    .split(/\r?\n/)
    .filter((line) => line.trim() !== "")
    .map((line) => {
      const equals = line.indexOf("=");
      if (equals < 0) return { device: line.trim(), mountPoint: "", hasEquals: false };
      const [device, mountPoint] = [line.slice(0, equals).trim(), line.slice(equals + 1).trim()];
      return { device, mountPoint, hasEquals: true };
    });
}

/** Made at first use. Another process may make it at the same time, with the same content. */
export async function readDeviceFile(file: string): Promise<readonly DeviceLine[]> {
  const there = readSmallFile(file);
  if (there !== undefined) return parseDeviceFile(there);
  await make(file).catch((error: NodeJS.ErrnoException) => {
    // Where nothing can be written the names are the same.
    if (!["EACCES", "EPERM", "EROFS"].includes(error.code ?? "")) throw error;
  });
  return parseDeviceFile(readSmallFile(file) ?? FIRST_CONTENT);
}

let temporaries = 0;

async function make(file: string): Promise<void> {
  await fs.mkdir(dirname(file), { recursive: true, mode: 0o755 });
  temporaries += 1;
  const temporary = `${file}.${process.pid}-${temporaries}.tmp`;
  await fs.writeFile(temporary, FIRST_CONTENT, { mode: 0o644 });
  await fs.link(temporary, file).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  await fs.rm(temporary, { force: true });
}
