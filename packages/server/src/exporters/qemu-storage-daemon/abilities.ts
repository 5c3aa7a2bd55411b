/** Whether this host has a storage daemon, for `--check`. */
import type { Ability, OpContext } from "../../core/driver.js";

export async function toolAbility({ exec, signal }: OpContext): Promise<Ability> {
  const name = "qemu-storage-daemon";
  try {
    const { stdout } = await exec(name, ["--version"], signal);
    return { name, available: true, detail: stdout.split("\n", 1)[0] ?? "" };
  } catch (error) {
    const detail = `${(error as Error).message}; install Debian's qemu-system-common`;
    return { name, available: false, detail };
  }
}
