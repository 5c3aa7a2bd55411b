/**
 * FUSE mounts over one file. When their daemon dies they stay, every use of them fails with ENOTCONN, and a new
 * mount stacks on top: what is left is taken away first, layer by layer.
 */
import { readFileSync } from "node:fs";
import type { OpContext } from "../../core/driver.js";

/** More layers than anybody has made. */
const MAX_LAYERS = 100;

function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, digits: string) =>
    String.fromCodePoint(Number.parseInt(digits, 8)),
  );
}

/** The ids of the FUSE mounts at a path, the lowest first. @see proc(5), mountinfo */
export function fuseMountsAt(path: string, table?: string): readonly number[] {
  return (table ?? readFileSync("/proc/self/mountinfo", "utf8")).split("\n").flatMap((line) => {
    const [mount = "", type = ""] = line.split(" - ");
    const fields = mount.split(" ");
    const isIt = unescaped(fields[4] ?? "") === path && /^fuse(?:\.|blk| |$)/.test(type);
    return isIt ? [Number(fields[0])] : [];
  });
}

/** Unmounts whatever FUSE has over a path. Who has it open keeps what is open. */
export async function clearMounts(path: string, { exec, signal, log }: OpContext): Promise<void> {
  for (let layer = 0; layer < MAX_LAYERS; layer += 1) {
    if (fuseMountsAt(path).length === 0) return;
    if (layer > 0) log.info({ path }, "one more stale FUSE mount is taken away");
    await exec("umount", ["--lazy", "--no-canonicalize", "--", path], signal);
  }
}
