/** Whether the file system below a root can share blocks between files, found by trying. */
import { constants } from "node:fs";
import { copyFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { TEMPORARY_PREFIX } from "../../core/files.js";
import type { Ability } from "../../core/driver.js";

const CANNOT: ReadonlySet<string> = new Set(["ENOTSUP", "EOPNOTSUPP", "ENOTTY", "EXDEV", "EINVAL"]);

/** Clones one block, as cp --reflink would. */
export async function reflinkAbility(root: string): Promise<Ability> {
  const name = "reflink";
  const from = join(root, `${TEMPORARY_PREFIX}reflink-${process.pid}`);
  const to = `${from}-clone`;
  try {
    await writeFile(from, Buffer.alloc(4096, 1), { mode: 0o600 });
    await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
    return { name, available: true, detail: "copies and snapshots share blocks with their source" };
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    const why = CANNOT.has(code) ? "the file system cannot share blocks" : message;
    return { name, available: false, detail: `copies and snapshots copy every byte: ${why}` };
  } finally {
    await Promise.allSettled([rm(from, { force: true }), rm(to, { force: true })]);
  }
}
