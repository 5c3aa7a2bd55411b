/** Whether what has come fits into the volume that it is for. */
import { StorageError, formatSize } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import type { Purpose } from "./backing.js";
import { usedBytes } from "./du.js";

/** @throws {StorageError} `resource-exhausted` when a volume of that size would not hold what is in the folder */
export async function checkFits(
  folder: string,
  { sizeBytes }: Pick<Purpose, "sizeBytes">,
  context: OpContext,
): Promise<void> {
  if (sizeBytes === 0) return;
  const used = await usedBytes(context, folder);
  if (used === undefined || used <= sizeBytes) return;
  throw new StorageError(
    "resource-exhausted",
    `the content takes ${formatSize(used)}, and the volume would have ${formatSize(sizeBytes)}; ask for a larger one`,
    { usedBytes: used, sizeBytes, freeBytes: sizeBytes },
  );
}
