/** Which processes keep a mount busy. */
import { readdir, readFile, readlink } from "node:fs/promises";

export interface Holder {
  readonly pid: number;
  readonly command: string;
}

/** A host may have many thousand processes with many thousand files. */
const MOST_HOLDERS = 5;
const TIME_LIMIT_MS = 2_000;

async function linksOf(pid: string): Promise<readonly string[]> {
  const base = `/proc/${pid}`;
  const fds = await readdir(`${base}/fd`).catch(() => []);
  const links = ["cwd", "root", "exe", ...fds.map((fd) => `fd/${fd}`)];
  const targets = await Promise.all(
    links.map((link) => readlink(`${base}/${link}`).catch(() => "")),
  );
  return targets.filter((target) => target !== "");
}

/** The first few processes that have a folder or file below `mountPoint` open, as far as this user may see. */
export async function holdersOf(mountPoint: string): Promise<readonly Holder[]> {
  const deadline = performance.now() + TIME_LIMIT_MS;
  const below = `${mountPoint}/`;
  const found: Holder[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    if (found.length >= MOST_HOLDERS || performance.now() > deadline) break;
    const links = await linksOf(pid);
    if (!links.some((target) => target === mountPoint || target.startsWith(below))) continue;
    const command = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "?");
    found.push({ pid: Number(pid), command: command.trim() });
  }
  return found;
}
