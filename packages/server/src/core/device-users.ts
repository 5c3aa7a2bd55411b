/** What of the kernel has a block device or a file open, which no process shows. @see sysfs(5), proc(5), configfs */
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { entriesOf, textOf } from "./kernel-text.js";

function leadsTo(path: string, device: string): boolean {
  // A file elsewhere is not followed: it may be on a network that is away.
  if (!path.startsWith("/dev/")) return false;
  try {
    return realpathSync(path) === device;
  } catch {
    return false;
  }
}

/** Loop devices that show a file or a device, such as `loop3`. @param path with all links resolved */
export function loopsOver(path: string, sys = "/sys"): readonly string[] {
  const folder = join(sys, "block");
  return entriesOf(folder).filter(
    (name) => /^loop\d+$/.test(name) && textOf(join(folder, name, "loop/backing_file")) === path,
  );
}

/** @param device such as `/dev/dm-3` */
export function isSwap(device: string, proc = "/proc"): boolean {
  const rows = textOf(join(proc, "swaps")).split("\n").slice(1);
  return rows.some((row) => leadsTo(row.split(/\s/)[0] ?? "", device));
}

/** Backstores of the kernel's target that have a device, whoever made them. @returns their names */
export function backstoresOn(device: string, sys = "/sys"): readonly string[] {
  const core = join(sys, "kernel/config/target/core");
  const groups = entriesOf(core).filter((name) => /^(?:iblock|fileio|pscsi)_\d+$/.test(name));
  return groups.flatMap((group) =>
    entriesOf(join(core, group)).filter((name) => {
      const at = join(core, group, name);
      return textOf(join(at, "enable")) === "1" && leadsTo(textOf(join(at, "udev_path")), device);
    }),
  );
}
