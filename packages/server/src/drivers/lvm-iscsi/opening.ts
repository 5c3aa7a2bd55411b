/** Whether a service can work on its volume group, and why not. */
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import type { Lvm } from "./lvm.js";
import type { LvRow, PoolState, VgRow } from "./reports.js";

type Context = Pick<OpContext, "exec" | "signal" | "log">;

function refusal(group: string, text: string): StorageError {
  return new StorageError("failed-precondition", `cannot use the volume group ${group}: ${text}`, {
    volumeGroup: group,
  });
}

/**
 * What belongs to another host LVM refuses to list.
 * @throws {StorageError} `failed-precondition` for a group that is missing, partial, exported or another's
 */
export async function openGroup(lvm: Lvm, context: Context): Promise<VgRow> {
  const { group } = lvm.about;
  const row = await lvm.vg(context);
  if (row === undefined) throw refusal(group, "there is none of that name; see vgs");
  if (row.isExported) throw refusal(group, "it is exported; import it first: vgimport");
  if (row.missingDisks > 0)
    throw refusal(
      group,
      `${row.missingDisks} of its disks are missing; bring them back, or take them out: vgreduce --removemissing`,
    );
  if (row.lockType !== "" && row.lockType !== "none")
    throw refusal(
      group,
      `it is shared between hosts by ${row.lockType} locks, which this driver does not use; give the service a group of its own`,
    );
  return row;
}

/**
 * A thin volume's blocks are not written over before they are given back: the pool zeroes them for the next.
 * @throws {StorageError} `failed-precondition` for a pool that does not
 */
export function checkZeroing({ name, state }: PoolRow, lvm: Lvm): void {
  if (state.isZeroing) return;
  const path = lvm.path(name);
  throw refusal(lvm.about.group, `with wipe: zero: ${notZeroing(path)}`);
}

/** For people: why nothing can be wiped in a pool, and what to do. */
export function notZeroing(path: string): string {
  return `the thin pool ${path} does not zero blocks before it gives them again; let it: lvchange --zero y ${path}`;
}

export interface PoolRow extends LvRow {
  readonly state: PoolState;
}

/** @throws {StorageError} `failed-precondition` when it is no thin pool */
export function poolIn(rows: readonly LvRow[], lvm: Lvm, name: string): PoolRow {
  const row = rows.find((one) => one.name === name);
  const path = lvm.path(name);
  const { group } = lvm.about;
  if (row === undefined)
    throw refusal(group, `there is no thin pool ${path}; make it: lvcreate --thinpool ${name}`);
  const { state } = row;
  if (state === undefined) throw refusal(group, `${path} is no thin pool; see lvs ${group}`);
  return { ...row, state };
}

/** @throws {StorageError} `failed-precondition` when the pool has failed, so that nothing in it works */
export function checkPool({ name, health }: PoolRow, lvm: Lvm): void {
  if (!health.includes("failed")) return;
  const path = lvm.path(name);
  throw refusal(
    lvm.about.group,
    `the thin pool ${path} has failed; repair it: lvconvert --repair ${path}`,
  );
}
