/** The name by which servers know this host. Two hosts of one name would be taken for one, so it can be set. */
import type { ExecutorContext } from "./executor.js";

/** @param scope of the executor's own keys: `vfs.instanceID.name` */
export function hostNameOf({ config, hostName }: ExecutorContext, scope: string): string {
  const value = config.find(`${scope}.instanceID.name`)?.value;
  return typeof value === "string" && value !== "" ? value : hostName;
}
