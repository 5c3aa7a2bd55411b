/** An empty block device on a loop, for what is done to whole devices. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface LoopDevice {
  /** `/dev/loop3`. */
  readonly path: string;
  /** The file behind it. */
  readonly image: string;
  grow(sizeMiB: number): void;
  remove(): void;
}

const made = new Set<LoopDevice>();
process.once("exit", () => {
  for (const device of made) device.remove();
});

export function makeDevice(sizeMiB: number): LoopDevice {
  const folder = mkdtempSync(join(tmpdir(), "device-"));
  const image = join(folder, "image");
  writeFileSync(image, "");
  truncateSync(image, sizeMiB * 1024 ** 2);
  const path = execFileSync("losetup", ["--find", "--show", image], { encoding: "utf8" }).trim();
  const device: LoopDevice = {
    path,
    image,
    grow(size) {
      truncateSync(image, size * 1024 ** 2);
      execFileSync("losetup", ["--set-capacity", path]);
    },
    remove() {
      if (!made.delete(device)) return;
      spawnSync("losetup", ["--detach", path]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  made.add(device);
  return device;
}

/** Why there are none here, or false. */
export function devicesMissing(tools: readonly string[]): string | false {
  if (process.geteuid?.() !== 0) return "only root can make loop devices";
  for (const tool of ["losetup", ...tools])
    if (spawnSync(tool, ["--version"]).error !== undefined) return `${tool} is not installed`;
  try {
    makeDevice(1).remove();
    return false;
  } catch (error) {
    return `no loop device can be made: ${(error as Error).message.split("\n")[0]}`;
  }
}
