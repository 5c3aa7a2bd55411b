/** Who uses a block device of this host: it must not go while somebody does. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openersOf } from "../executor/holders.js";
import { readMountTable } from "../executor/mount-table.js";
import { sysEntries, sysText } from "./kernel.js";

/** What only looks at a device, as udev does after an unmount, is gone again within this time. */
const GLANCE_MS = 5_000;
const LOOK_EVERY_MS = 100;
/** They have devices open for others' sake, and let go of one that goes. */
const ATTENDANTS = ["multipathd", "nbd-client"];

/** A device and its partitions. */
async function partsOf(sys: string, name: string): Promise<readonly string[]> {
  const parts = await sysEntries(join(sys, "class/block", name));
  return [name, ...parts.filter((one) => one.startsWith(name))];
}

/** @param name such as `sdb` or `dm-3`. @returns the users in words; none: it is free */
export async function usersOf(sys: string, name: string): Promise<readonly string[]> {
  const found: string[] = [];
  for (const one of await partsOf(sys, name)) {
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
  return [...new Set(found), ...(await openersAt(sys, [name]))];
}

/**
 * The programs that have one of these devices open, or a partition of it: a virtual machine or a database may use it
 * without any file system.
 * @returns them in words
 */
export async function openersAt(sys: string, names: readonly string[]): Promise<readonly string[]> {
  const parts = (await Promise.all(names.map((name) => partsOf(sys, name)))).flat();
  const numbers = await Promise.all(
    parts.map((part) => sysText(join(sys, "class/block", part, "dev"))),
  );
  const devices = new Set(numbers.filter((number) => number !== ""));
  if (devices.size === 0) return [];
  const end = performance.now() + GLANCE_MS;
  for (;;) {
    const openers = (await openersOf(devices)).filter(
      ({ command }) => !ATTENDANTS.includes(command),
    );
    if (openers.length === 0 || performance.now() > end)
      return openers.map(({ pid, command }) => `the process ${command} (pid ${pid})`);
    await sleep(LOOK_EVERY_MS);
  }
}
