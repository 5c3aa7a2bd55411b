/** du(1) of GNU coreutils. */
import type { OpContext } from "../../core/driver.js";
import { NO_TIME_LIMIT_MS } from "./time-limit.js";

/**
 * The bytes that a folder takes on its disk, each hard link once and holes not at all; undefined when they
 * cannot be told. Good for a progress bar, where a copy need not fail over it.
 */
export async function usedBytes(context: OpContext, folder: string): Promise<number | undefined> {
  try {
    const options = { timeoutMs: NO_TIME_LIMIT_MS };
    const args = ["--summarize", "--block-size=1", "--", folder];
    const { stdout } = await context.exec("du", args, context.signal, options);
    const bytes = Number.parseInt(stdout, 10);
    return Number.isSafeInteger(bytes) ? bytes : undefined;
  } catch (error) {
    if (context.signal.aborted) throw error;
    return undefined;
  }
}
