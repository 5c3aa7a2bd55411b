/** sync(1) of GNU coreutils. */
import type { OpContext } from "../../core/driver.js";
import { NO_TIME_LIMIT_MS } from "../folders/time-limit.js";

/** Writes all that is unwritten on the file system of `folder` to its disk. */
export async function syncFileSystem(context: OpContext, folder: string): Promise<void> {
  const options = { timeoutMs: NO_TIME_LIMIT_MS };
  await context.exec("sync", ["--file-system", "--", folder], context.signal, options);
}
