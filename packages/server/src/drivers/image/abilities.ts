/** What this host can do for images below a root. */
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import type { Ability, OpContext } from "../../core/driver.js";
import { reflinkAbility } from "../folders/reflink.js";

async function writeAbility(root: string): Promise<Ability> {
  const name = "write";
  try {
    await access(root, constants.W_OK | constants.X_OK);
    return { name, available: true, detail: `${root} can be written` };
  } catch (error) {
    return { name, available: false, detail: (error as Error).message };
  }
}

async function toolAbility(context: OpContext): Promise<Ability> {
  const name = "qemu-img";
  try {
    const { stdout } = await context.exec("qemu-img", ["--version"], context.signal);
    return { name, available: true, detail: stdout.split("\n", 1)[0] ?? "" };
  } catch (error) {
    const detail = `${(error as Error).message}; install Debian's qemu-utils`;
    return { name, available: false, detail };
  }
}

export async function abilitiesOf(root: string, context: OpContext): Promise<readonly Ability[]> {
  return [await writeAbility(root), await toolAbility(context), await reflinkAbility(root)];
}
