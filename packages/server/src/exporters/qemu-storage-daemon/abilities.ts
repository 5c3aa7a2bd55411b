/** Whether this host has a storage daemon, for `--check`. */
import type { Ability, OpContext } from "../../core/driver.js";

/** @param check throws when it is not there */
export async function abilityOf(
  name: string,
  detail: string,
  check: () => Promise<void>,
): Promise<Ability> {
  try {
    await check();
    return { name, available: true, detail };
  } catch (error) {
    return { name, available: false, detail: (error as Error).message };
  }
}

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
