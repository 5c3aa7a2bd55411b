/** What this host can do below a root, found by trying. */
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import type { Ability } from "../../core/driver.js";
import { reflinkAbility } from "../folders/reflink.js";
import type { QuotaFinding } from "./quota.js";

async function writeAbility(root: string): Promise<Ability> {
  const name = "write";
  try {
    await access(root, constants.W_OK | constants.X_OK);
    return { name, available: true, detail: `${root} can be written` };
  } catch (error) {
    return { name, available: false, detail: (error as Error).message };
  }
}

export async function abilitiesOf(root: string, quota: QuotaFinding): Promise<readonly Ability[]> {
  return [
    await writeAbility(root),
    await reflinkAbility(root),
    { name: "quota", available: quota.quota !== undefined, detail: quota.detail },
  ];
}
