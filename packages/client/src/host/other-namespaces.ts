/** Who still sees a volume in a mount namespace of its own: containers. */
import { readdir, readFile, readlink } from "node:fs/promises";
import type { Holder } from "../executor/holders.js";
import type { MountRecord } from "../executor/executor.js";
import { mountsAt, parseMountTable, readMountTable } from "../executor/mount-table.js";

const TIME_LIMIT_MS = 2_000;
const MOST_SEEN = 5;

/** A bind of the same file system's same folder, or of one below it, at a place of its own. */
function isUseOf(mount: MountRecord, entry: MountRecord): boolean {
  if (entry.major !== mount.major || entry.minor !== mount.minor) return false;
  const base = mount.root.replace(/\/$/, "");
  if (entry.root !== mount.root && !entry.root.startsWith(`${base}/`)) return false;
  // A namespace that was copied while the volume was mounted shows it where it is here, and uses it not.
  return !entry.mountPoint.endsWith(mount.mountPoint);
}

/**
 * The processes, one of each namespace, that see what is mounted at `mountPoint` elsewhere than there. A
 * mount can be taken away here while a container keeps its own bind of it; the volume would then be given
 * to another host with a writer left on this one.
 */
export async function seenElsewhere(mountPoint: string): Promise<readonly Holder[]> {
  const mount = mountsAt(await readMountTable(), mountPoint).at(-1);
  if (mount === undefined) return [];
  const deadline = performance.now() + TIME_LIMIT_MS;
  const known = new Set([await readlink("/proc/self/ns/mnt").catch(() => "")]);
  const seen: Holder[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    if (seen.length >= MOST_SEEN || performance.now() > deadline) break;
    const namespace = await readlink(`/proc/${pid}/ns/mnt`).catch(() => undefined);
    if (namespace === undefined || known.has(namespace)) continue;
    const table = await readFile(`/proc/${pid}/mountinfo`).catch(() => undefined);
    if (table === undefined || table.length === 0) continue;
    known.add(namespace);
    if (!parseMountTable(table).some((entry) => isUseOf(mount, entry))) continue;
    const command = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "?");
    seen.push({ pid: Number(pid), command: command.trim() });
  }
  return seen;
}
