/**
 * Who has a file open for writing on this host. Locks alone do not tell: loop devices, cp and most programs take
 * none. Nor do names: a file may be open through a bind mount, a second name, or in another mount namespace. So it is
 * the file itself that is compared, by device and inode. @see proc(5)
 */
import { lstatSync, readlinkSync, statSync } from "node:fs";
import type { Stats } from "node:fs";
import { setImmediate } from "node:timers/promises";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { CommandError } from "../../core/exec.js";
import { entriesOf, textOf } from "../../core/kernel-text.js";
import { isLockedForWriting } from "./qemu-img.js";

/** How long a look at all open files works before it lets others in. */
const TURN_MS = 5;

type FileID = Pick<Stats, "dev" | "ino">;

/** Older ones of its versions give texts. */
const Inode = v.nullish(v.union([v.number(), v.pipe(v.string(), v.transform(Number))]));
const Loops = v.object({
  loopdevices: v.array(
    v.object({ name: v.string(), "back-ino": Inode, "back-maj:min": v.nullish(v.string(), "") }),
  ),
});

/** As the kernel packs them. @see makedev(3) */
function numbersOf(dev: number): string {
  const [low, high] = [dev % 2 ** 32, Math.floor(dev / 2 ** 32)];
  const major = ((low >>> 8) & 0xfff) + (high & ~0xfff);
  const minor = (low & 0xff) + ((low >>> 12) & 0xfff00);
  return `${major}:${minor}`;
}

/** A loop device on a file, such as `/dev/loop0`; sysfs tells of the name alone under which it was opened. */
async function loopOn(
  path: string,
  { dev, ino }: FileID,
  context: OpContext,
): Promise<string | undefined> {
  const backings = entriesOf("/sys/block")
    .filter((name) => name.startsWith("loop"))
    .map((name) => [name, textOf(`/sys/block/${name}/loop/backing_file`)] as const)
    .filter(([, backing]) => backing !== "");
  const [name] = backings.find(([, backing]) => backing === path) ?? [];
  if (name !== undefined) return `/dev/${name}`;
  if (backings.length === 0) return undefined;
  const args = ["--list", "--json", "--output", "NAME,BACK-INO,BACK-MAJ:MIN"];
  try {
    const { stdout } = await context.exec("losetup", args, context.signal);
    if (stdout.trim() === "") return undefined;
    const { loopdevices } = v.parse(Loops, JSON.parse(stdout));
    return loopdevices.find(
      (one) => one["back-ino"] === ino && one["back-maj:min"].trim() === numbersOf(dev),
    )?.name;
  } catch (error) {
    // Who may not ask has the names.
    if (error instanceof CommandError && (error.exitCode > 0 || error.isMissing)) return undefined;
    throw error;
  }
}

/** What the link of a descriptor may do, the descriptor may. */
const MAY_WRITE = 0o200;

/** Whether a descriptor of another process is of this file, and may write to it. The cheapest look comes first. */
function isWriter(folder: string, fd: string, { dev, ino }: FileID): boolean {
  const path = `${folder}/fd/${fd}`;
  try {
    const link = readlinkSync(path);
    // Sockets, pipes and the like have no path.
    if (!link.startsWith("/") || link === "/dev/null") return false;
    if ((lstatSync(path).mode & MAY_WRITE) === 0) return false;
    // Since Linux 5.14. A look at the file itself may wait for a server that is away.
    const known = /^ino:\s+(\d+)/m.exec(textOf(`${folder}/fdinfo/${fd}`))?.[1];
    if (known !== undefined && Number(known) !== ino) return false;
    const stats = statSync(path);
    return stats.dev === dev && stats.ino === ino;
  } catch {
    // It was closed meanwhile.
    return false;
  }
}

/** The first process found that can write to a file, as `PID (NAME)`. */
async function writerOf(id: FileID, { signal }: OpContext): Promise<string | undefined> {
  let turn = performance.now();
  for (const pid of entriesOf("/proc").filter((name) => /^\d+$/.test(name))) {
    const folder = `/proc/${pid}`;
    for (const fd of entriesOf(`${folder}/fd`)) {
      if (isWriter(folder, fd, id)) return `${pid} (${textOf(`${folder}/comm`)})`;
      if (performance.now() - turn < TURN_MS) continue;
      await setImmediate();
      if (signal.aborted)
        throw new StorageError(
          "cancelled",
          "the request was cancelled",
          {},
          { cause: signal.reason },
        );
      turn = performance.now();
    }
  }
  return undefined;
}

/**
 * What uses a file for writing, in words; undefined when nothing does. A QEMU that no look at processes shows, such as
 * one of another host or of another PID namespace, is seen by its lock.
 */
export async function userOf(path: string, context: OpContext): Promise<string | undefined> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() !== true) return undefined;
  const loop = await loopOn(path, stats, context);
  if (loop !== undefined) return `the loop device ${loop}`;
  const writer = await writerOf(stats, context);
  if (writer !== undefined) return `process ${writer}`;
  return (await isLockedForWriting(path, context)) ? "a QEMU process out of sight" : undefined;
}
