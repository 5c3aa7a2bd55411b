/** Who uses a block device of this host: it must not go while somebody does. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { readMountTable } from "../executor/mount-table.js";
import { sysEntries, sysText } from "./kernel.js";

/** @param name such as `sdb` or `dm-3`. @returns the users in words; none: it is free */
export async function usersOf(sys: string, name: string): Promise<readonly string[]> {
  const at = join(sys, "class/block", name);
  const own = [name, ...(await sysEntries(at)).filter((one) => one.startsWith(name))];
  const found: string[] = [];
  for (const one of own) {
    const folder = join(sys, "class/block", one);
    const [major, minor] = (await sysText(join(folder, "dev"))).split(":").map(Number);
    for (const holder of await sysEntries(join(folder, "holders"))) {
      const title = await sysText(join(sys, "class/block", holder, "dm/name"));
      found.push(`the device ${holder}${title === "" ? "" : ` (${title})`}`);
    }
    for (const record of await readMountTable()) {
      const isIt = record.major === major && record.minor === minor;
      // Btrfs has numbers of its own.
      if (isIt || record.source === `/dev/${one}`) found.push(`the mount ${record.mountPoint}`);
    }
    const swaps = await readFile("/proc/swaps", "utf8").catch(() => "");
    if (swaps.split("\n").some((line) => line.split(/\s/)[0] === `/dev/${one}`)) found.push("swap");
  }
  return [...new Set(found)];
}
