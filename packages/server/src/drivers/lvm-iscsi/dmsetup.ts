/** dmsetup(8): what LVM has no command for. */
import type { OpContext } from "../../core/driver.js";

type Context = Pick<OpContext, "exec" | "signal">;

/**
 * Whatever is written or read from now on waits. Nothing is flushed, neither by a file system on it: that
 * would need the room that is not there.
 */
export async function suspend(name: string, { exec, signal }: Context): Promise<void> {
  await exec("dmsetup", ["suspend", "--noflush", "--nolockfs", name], signal);
}

export async function resume(name: string, { exec, signal }: Context): Promise<void> {
  await exec("dmsetup", ["resume", name], signal);
}

/** How often a device is open, as the kernel counts it; undefined when that cannot be told. */
export async function openCount(
  name: string,
  { exec, signal }: Context,
): Promise<number | undefined> {
  const args = ["info", "--columns", "--noheadings", "-o", "open", name];
  const said = await exec("dmsetup", args, signal).catch(() => undefined);
  const text = said?.stdout.trim() ?? "";
  return /^\d+$/.test(text) ? Number(text) : undefined;
}
