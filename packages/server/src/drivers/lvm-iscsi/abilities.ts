/** What this host can do for a service, for `--check`. */
import { formatSize } from "@libstorage/model";
import type { Ability, OpContext } from "../../core/driver.js";
import { CommandError } from "../../core/exec.js";
import { checkPool, openGroup, poolIn } from "./opening.js";
import type { Lvm } from "./lvm.js";

/** Finds out by `find`, or tells why it cannot be found out. */
async function ability(name: string, find: () => Promise<string>): Promise<Ability> {
  try {
    return { name, available: true, detail: await find() };
  } catch (error) {
    return { name, available: false, detail: error instanceof Error ? error.message : "unknown" };
  }
}

async function toolAbility(file: string, why: string, context: OpContext): Promise<Ability> {
  return ability(file, async () => {
    await context.exec(file, ["--version"], context.signal).catch((error: unknown) => {
      if (!(error instanceof CommandError) || error.isMissing) throw error;
    });
    return why;
  });
}

export async function abilitiesOf(lvm: Lvm, context: OpContext): Promise<readonly Ability[]> {
  const { group, pool } = lvm.about;
  const found = [
    await ability("lvm", async () => {
      const { stdout } = await context.exec("lvm", ["version"], context.signal);
      return /LVM version:\s+(\S+)/.exec(stdout)?.[1] ?? "unknown version";
    }),
    await ability("volume group", async () => {
      const { freeBytes, totalBytes, metadataBytes, metadataFreeBytes } = await openGroup(
        lvm,
        context,
      );
      return `${group}: ${formatSize(freeBytes)} of ${formatSize(totalBytes)} free; ${formatSize(metadataFreeBytes)} of ${formatSize(metadataBytes)} free for names and records`;
    }),
  ];
  if (pool !== undefined)
    found.push(
      await ability("thin pool", async () => {
        const row = poolIn(await lvm.lvs(context), lvm, pool);
        checkPool(row, lvm);
        const { sizeBytes, state } = row;
        const { dataPercent = "?", metadataPercent = "?" } = state;
        return `${lvm.path(pool)}: ${formatSize(sizeBytes)}, ${dataPercent} % of data and ${metadataPercent} % of metadata used`;
      }),
    );
  found.push(await toolAbility("blkdiscard", "wipes what is given back", context));
  found.push(await toolAbility("dd", "copies volumes without a thin pool", context));
  return found;
}
