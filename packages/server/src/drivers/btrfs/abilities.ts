/** What this host can do below a root, found by trying. */
import { join } from "node:path";
import { TEMPORARY_PREFIX } from "../../core/files.js";
import type { Ability, OpContext } from "../../core/driver.js";
import { createSubvolume, deletedSubvolumes, deleteSubvolume } from "./btrfs.js";
import { failureOf } from "../folders/failures.js";
import type { Quota } from "./quota.js";

function whyOf(error: unknown, doing: string): string {
  return (failureOf(error, doing) as Error).message;
}

async function subvolumeAbility(root: string, context: OpContext): Promise<Ability> {
  const name = "write";
  const path = join(root, `${TEMPORARY_PREFIX}try-${process.pid}`);
  try {
    await createSubvolume(context, path);
    await deleteSubvolume(context, path);
    return { name, available: true, detail: `subvolumes can be made and deleted in ${root}` };
  } catch (error) {
    return {
      name,
      available: false,
      detail: whyOf(error, `make and delete a subvolume in ${root}`),
    };
  }
}

/** Space of removed volumes comes back when the kernel's cleaner has got there. */
async function cleanerAbility(root: string, context: OpContext): Promise<Ability> {
  const name = "cleaner";
  try {
    const waiting = await deletedSubvolumes(context, root);
    const what = waiting === 1 ? "1 deleted subvolume waits" : `${waiting} deleted subvolumes wait`;
    const detail = waiting === 0 ? "the space of all that was removed is free" : `${what} for it`;
    return { name, available: true, detail };
  } catch (error) {
    return { name, available: false, detail: whyOf(error, "look for deleted subvolumes") };
  }
}

export async function abilitiesOf(
  root: string,
  quota: Quota,
  context: OpContext,
): Promise<readonly Ability[]> {
  return [
    await cleanerAbility(root, context),
    await subvolumeAbility(root, context),
    { name: "quota", available: quota.isOn, detail: await quota.detail(context) },
  ];
}
