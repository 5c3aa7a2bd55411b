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
