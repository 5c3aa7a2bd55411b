/** Adds one to a file, again and again, each time under the lock; see host-lock.test.ts. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { runCommand, withHostLock } from "@libstorage/client/host";

const [lock = "", file = "", times = "1"] = process.argv.slice(2);
for (let count = 0; count < Number(times); count += 1) {
  const limits = { waitMs: 30_000, signal: new AbortController().signal };
  await withHostLock(runCommand, lock, limits, async () => {
    const value = Number(await readFile(file, "utf8"));
    await sleep(2);
    // Whole, wherever this process is killed.
    await writeFile(`${file}.new`, String(value + 1));
    await rename(`${file}.new`, file);
    process.stdout.write("+");
  });
}
