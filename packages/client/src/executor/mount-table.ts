/** What is mounted on this host, from /proc/self/mountinfo; see proc_pid_mountinfo(5). */
import { readFileSync } from "node:fs";
import type { MountRecord } from "./executor.js";

/** Blanks and the like are written as three octal digits. */
function unescape(text: string): string {
  return Buffer.from(
    text.replace(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    ),
    "latin1",
  ).toString("utf8");
}

function parseLine(line: string): MountRecord | undefined {
  const words = line.split(" ");
  const dash = words.indexOf("-", 6);
  const [id, parent, device = "", root = "", mountPoint = "", opts = ""] = words;
  const [major, minor] = device.split(":").map(Number);
  if (dash < 0 || major === undefined || minor === undefined) return undefined;
  const [fsType = "", source = "", ...rest] = words.slice(dash + 1);
  return {
    id: Number(id),
    parent: Number(parent),
    major,
    minor,
    root: unescape(root),
    mountPoint: unescape(mountPoint),
    opts,
    optional: words.slice(6, dash).join(" "),
    fsType,
    source: unescape(source),
    vfsOpts: rest.join(" "),
  };
}

/** In the order of the kernel: of several mounts on one point the last one is on top. */
export function parseMountTable(text: Buffer | string): readonly MountRecord[] {
  return text
    .toString("latin1")
    .split("\n")
    .map(parseLine)
    .filter((record) => record !== undefined);
}

/** Reads the table; another one stands in for the kernel's in tests. */
export type MountTable = () => Promise<readonly MountRecord[]>;

/** The kernel answers from its memory: at once, and sooner than another thread could be asked to read it. */
export async function readMountTable(): Promise<readonly MountRecord[]> {
  return parseMountTable(readFileSync("/proc/self/mountinfo"));
}

/** The mounts on exactly this point, the top one last. */
export function mountsAt(
  table: readonly MountRecord[],
  mountPoint: string,
): readonly MountRecord[] {
  return table.filter((record) => record.mountPoint === mountPoint);
}
