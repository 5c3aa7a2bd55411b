/** Small file systems for tests, where this process may mount. */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { makeScratch } from "../faults/folders.js";

const mounted = new Set<string>();

function run(file: string, ...args: string[]): void {
  execFileSync(file, args, { stdio: "pipe" });
}

/** Why no file system can be mounted here, or false. */
export function cannotMount(): string | false {
  if (process.getuid?.() !== 0) return "only root can mount";
  const scratch = makeScratch("mount-probe");
  try {
    mountMemory(scratch.path, "64k");
    unmount(scratch.path);
    return false;
  } catch (error) {
    return `cannot mount a tmpfs: ${(error as Error).message.trim()}`;
  } finally {
    void scratch.remove();
  }
}

/** Mounts a tmpfs. @param size as mount(8) takes it, such as `1m` */
export function mountMemory(folder: string, size: string): void {
  mkdirSync(folder, { recursive: true });
  run("mount", "-t", "tmpfs", "-o", `size=${size},mode=700`, "libstorage-test", folder);
  mounted.add(folder);
}

export function remount(folder: string, options: string): void {
  run("mount", "-o", `remount,${options}`, folder);
}

export function unmount(folder: string): void {
  if (!mounted.delete(folder)) return;
  run("umount", "--lazy", folder);
}

/** To be called at the end, whatever happened. */
export function unmountAll(): void {
  for (const folder of [...mounted].toReversed()) unmount(folder);
}

process.once("exit", unmountAll);
