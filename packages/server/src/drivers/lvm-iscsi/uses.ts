/** What uses an active logical volume on this host, and so keeps it from being taken away. */
import { join } from "node:path";
import { backstoresOn, isSwap, loopsOver } from "../../core/device-users.js";
import type { OpContext } from "../../core/driver.js";
import { entriesOf, linkOf, textOf } from "../../core/kernel-text.js";
import { readAllMounts } from "../../core/mounts.js";
import { dmNameOf, kernelNameOf } from "./devices.js";
import { openCount } from "./dmsetup.js";

/** How many processes are named in an error. */
const MOST_NAMED = 5;

export interface Uses {
  readonly mountPoints: readonly string[];
  /** Devices made of it, by their device-mapper names. */
  readonly holders: readonly string[];
  /** `PID (NAME)` of processes that have it open. */
  readonly processes: readonly string[];
  /** Such as `loop3`. */
  readonly loops: readonly string[];
  /** Of the kernel's target, by their names. */
  readonly backstores: readonly string[];
  readonly isSwap: boolean;
  /** How often the kernel counts it as open, whatever of that is seen here; undefined: not asked, or not told. */
  readonly openCount?: number;
}

const NONE: Uses = {
  mountPoints: [],
  holders: [],
  processes: [],
  loops: [],
  backstores: [],
  isSwap: false,
};

/** Where the kernel shows itself; others in tests. */
export interface Kernel {
  readonly sys: string;
  readonly proc: string;
}

const HERE: Kernel = { sys: "/sys", proc: "/proc" };

/** Who has a device open, as far as this process may see. */
function openersOf(device: string, proc: string): string[] {
  const found: string[] = [];
  for (const pid of entriesOf(proc)) {
    if (found.length >= MOST_NAMED) break;
    if (!/^\d+$/.test(pid)) continue;
    const folder = join(proc, pid, "fd");
    if (entriesOf(folder).some((fd) => linkOf(join(folder, fd)) === device))
      found.push(`${pid} (${textOf(join(proc, pid, "comm"))})`);
  }
  return found;
}

/** What uses an active volume on this host. @param path of its device */
export function usesOf(path: string): Uses {
  const kernelName = kernelNameOf(path);
  return kernelName === undefined ? NONE : usesOfDevice(kernelName);
}

/** @param kernelName such as `dm-3` */
export function usesOfDevice(kernelName: string, { sys, proc }: Kernel = HERE): Uses {
  const device = `/dev/${kernelName}`;
  const folder = join(sys, "block", kernelName);
  const number = textOf(join(folder, "dev"));
  const holders = entriesOf(join(folder, "holders")).map((name) => dmNameOf(name, sys));
  const mounts = readAllMounts().filter((mount) => mount.device === number);
  return {
    mountPoints: [...new Set(mounts.map(({ mountPoint }) => mountPoint))],
    holders,
    processes: openersOf(device, proc),
    loops: loopsOver(device, sys),
    backstores: backstoresOn(device, sys),
    isSwap: isSwap(device, proc),
  };
}

/** The same, with the kernel's own count: more may have it open than can be seen. */
export async function countedUsesOf(path: string, context: OpContext): Promise<Uses> {
  const kernelName = kernelNameOf(path);
  if (kernelName === undefined) return NONE;
  const count = await openCount(dmNameOf(kernelName), context);
  return { ...usesOfDevice(kernelName), ...(count !== undefined && { openCount: count }) };
}

/** For people: what uses it and what to do about that. */
export function wordsOf(uses: Uses): string {
  const parts = [
    ...uses.mountPoints.map((path) => `it is mounted at ${path} (unmount it there)`),
    ...uses.holders.map((name) => `the device ${name} is made of it (dmsetup remove ${name})`),
    ...uses.loops.map((name) => `the loop device ${name} shows it (losetup -d /dev/${name})`),
    ...uses.backstores.map((name) => `the kernel's target exports it as ${name} (targetcli ls)`),
    ...(uses.isSwap ? ["it is swap (swapoff)"] : []),
    ...uses.processes.map((one) => `process ${one} has it open`),
  ];
  const { openCount: count } = uses;
  const counted = count === undefined ? "" : `the kernel's open count of it is ${count}`;
  if (parts.length > 0) return [...parts, ...(counted === "" ? [] : [counted])].join("; ");
  if (count === 0) return `${counted}: what had it open has let go of it`;
  const unseen =
    "what has it open is not seen from here: a process of another user or container, or something in the kernel";
  return counted === "" ? unseen : `${counted}, and ${unseen}`;
}
