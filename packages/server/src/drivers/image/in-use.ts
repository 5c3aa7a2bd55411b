/**
 * Who has a file open for writing on this host. Locks do not tell: loop devices, cp and most programs take
 * none. @see proc(5)
 */
import { readFileSync, readdirSync, readlinkSync } from "node:fs";

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // It has ended meanwhile.
    return "";
  }
}

/** Loop devices on a file, such as `/dev/loop0`. */
export function loopsOn(path: string): string[] {
  return entries("/sys/block")
    .filter((name) => name.startsWith("loop"))
    .filter((name) => textOf(`/sys/block/${name}/loop/backing_file`).trimEnd() === path)
    .map((name) => `/dev/${name}`);
}

const ACCESS = 0o3;

/** Processes that can write to a file, as `PID (NAME)`. */
export function writersOf(path: string): string[] {
  const found: string[] = [];
  for (const pid of entries("/proc").filter((name) => /^\d+$/.test(name))) {
    const folder = `/proc/${pid}`;
    const fds = entries(`${folder}/fd`).filter((fd) => linkOf(`${folder}/fd/${fd}`) === path);
    const isWriter = (fd: string): boolean => {
      const flags = /^flags:\s+(\d+)/m.exec(textOf(`${folder}/fdinfo/${fd}`))?.[1];
      return flags !== undefined && (Number.parseInt(flags, 8) & ACCESS) !== 0;
    };
    if (fds.some(isWriter)) found.push(`${pid} (${textOf(`${folder}/comm`).trim()})`);
  }
  return found;
}

/** What uses a file for writing, in words; undefined when nothing does. */
export function userOf(path: string): string | undefined {
  const [loop] = loopsOn(path);
  if (loop !== undefined) return `the loop device ${loop}`;
  const [writer] = writersOf(path);
  return writer === undefined ? undefined : `process ${writer}`;
}
