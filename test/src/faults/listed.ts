/** What stands in a backend that only its driver can read. */
import { GIB } from "@libstorage/model";
import type { OpContext, StorageDriver } from "@libstorage/server";
import type { ObjectState } from "./world.js";

export async function stateOf(
  driver: StorageDriver,
  context: OpContext,
): Promise<Map<string, ObjectState>> {
  const { volumes, snapshots } = await driver.list(context);
  const state = new Map<string, ObjectState>();
  const put = (key: string, object: ObjectState): void => {
    if (state.has(key)) throw new Error(`two objects are ${key}`);
    state.set(key, object);
  };
  for (const { id, name, sizeBytes, attachments, epoch } of volumes) {
    const holders = attachments.map(({ instanceID }) => instanceID.id);
    put(`volume ${name}`, { id, name, sizeGiB: sizeBytes / GIB, holders, epoch, data: "" });
  }
  for (const { id, name, sizeBytes } of snapshots)
    put(`snapshot ${name}`, {
      id,
      name,
      sizeGiB: sizeBytes / GIB,
      holders: [],
      epoch: 0,
      data: "",
    });
  return state;
}
