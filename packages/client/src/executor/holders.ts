/** Which processes keep a mount or a device busy. */
import { readdirSync, readlinkSync } from "node:fs";
import { readdir, readFile, readlink, stat } from "node:fs/promises";
import { numbersIn } from "../filesystem/device-numbers.js";

export interface Holder {
  readonly pid: number;
  readonly command: string;
}

/** A host may have many thousand processes with many thousand files. */
const MOST_HOLDERS = 5;
const TIME_LIMIT_MS = 2_000;

async function processIDs(): Promise<readonly string[]> {
  return (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
}

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
  for (const pid of await processIDs()) {
    if (found.length >= MOST_HOLDERS || performance.now() > deadline) break;
    const links = await linksOf(pid);
    if (!links.some((target) => target === mountPoint || target.startsWith(below))) continue;
    found.push(await named(pid));
  }
  return found;
}

async function named(pid: string): Promise<Holder> {
  const command = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "?");
  return { pid: Number(pid), command: command.trim() };
}

/**
 * The first few processes that have one of these block devices open, as far as this user may see. All are looked at,
 * however long that takes: who is overlooked loses what it writes.
 * @param devices as the kernel writes them, `MAJOR:MINOR`
 */
export async function openersOf(devices: ReadonlySet<string>): Promise<readonly Holder[]> {
  const found: Holder[] = [];
  for (const pid of await processIDs()) {
    if (found.length >= MOST_HOLDERS) break;
    const opened = await Promise.all(devicesOf(pid).map(numberOf));
    if (!opened.some((device) => device !== undefined && devices.has(device))) continue;
    if (!(await isEnding(pid))) found.push(await named(pid));
  }
  return found;
}

/**
 * What a process has open in /dev. Nothing else is looked at: a file on a network that is away would not answer.
 * The kernel tells the names from its memory: at once, and sooner than another thread could be asked.
 */
function devicesOf(pid: string): readonly string[] {
  const folder = `/proc/${pid}/fd`;
  try {
    const paths = readdirSync(folder).map((name) => `${folder}/${name}`);
    return paths.filter((path) => linkAt(path).startsWith("/dev/"));
  } catch {
    // It has ended, or belongs to another user.
    return [];
  }
}

function linkAt(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

/** By its number, since in a container a device may have any name. */
async function numberOf(path: string): Promise<string | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isBlockDevice() !== true) return undefined;
  const { major, minor } = numbersIn(found.rdev);
  return `${major}:${minor}`;
}

async function isEnding(pid: string): Promise<boolean> {
  return isKilled(await readFile(`/proc/${pid}/status`, "utf8").catch(() => ""));
}

/**
 * Whether SIGKILL waits for a process: then it only waits for a request that the device does not answer, and makes no
 * other. @param status of proc(5), where signals are the bits of a number
 */
export function isKilled(status: string): boolean {
  return /^(?:Sig|Shd)Pnd:\t[\da-f]*[13579bdf][\da-f]{2}$/m.test(status);
}
