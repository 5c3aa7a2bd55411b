/** The kernel's table of mounts. @see proc_pid_mountinfo(5) */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

export interface Mount {
  /** `MAJOR:MINOR` of the file system. */
  readonly device: string;
  /** Which folder of the file system is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly fsType: string;
  /** Of the mount and of the file system. */
  readonly options: readonly string[];
}

function unescaped(path: string): string {
  if (!path.includes("\\")) return path;
  const bytes = Buffer.from(path).toString("latin1");
  const text = bytes.replace(/\\([0-7]{3})/g, (_all, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return Buffer.from(text, "latin1").toString();
}

export function parseMounts(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const [left = "", right = ""] = line.split(" - ", 2);
    const [, , device, root, mountPoint, options] = left.split(" ");
    const [fsType, , superOptions = ""] = right.split(" ");
    if (device === undefined || root === undefined || mountPoint === undefined) continue;
    mounts.push({
      device,
      root: unescaped(root),
      mountPoint: unescaped(mountPoint),
      fsType: fsType ?? "",
      options: [...(options ?? "").split(","), ...superOptions.split(",")],
    });
  }
  return mounts;
}

export function readMounts(): Mount[] {
  return parseMounts(readFileSync("/proc/self/mountinfo", "utf8"));
}

/**
 * Every mount of this host that this process may see: those of other mount namespaces, too.
 * @param own those of this process
 */
export function readAllMounts(own: readonly Mount[] = readMounts()): Mount[] {
  const seen = new Set([readlinkSync("/proc/self/ns/mnt")]);
  const mounts = [...own];
  for (const pid of readdirSync("/proc")) {
    if (!/^\d/.test(pid)) continue;
    try {
      const namespace = readlinkSync(`/proc/${pid}/ns/mnt`);
      if (seen.has(namespace)) continue;
      mounts.push(...parseMounts(readFileSync(`/proc/${pid}/mountinfo`, "utf8")));
      seen.add(namespace);
    } catch {
      // It has ended, or belongs to someone whose mounts this process may not see.
    }
  }
  return mounts;
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === "/" ? "/" : `${folder}/`);
}

/** The mount that an absolute path without links lies on. Of two on one point the later covers the earlier. */
export function mountOf(mounts: readonly Mount[], path: string): Mount | undefined {
  let found: Mount | undefined;
  for (const mount of mounts) {
    const isCloser = mount.mountPoint.length >= (found?.mountPoint.length ?? 0);
    if (isWithin(path, mount.mountPoint) && isCloser) found = mount;
  }
  return found;
}

/** Mount points in or on a folder. */
export function mountsBelow(mounts: readonly Mount[], folder: string): string[] {
  return mounts.filter((mount) => isWithin(mount.mountPoint, folder)).map((m) => m.mountPoint);
}

/**
 * Where a folder, or a part of it, is mounted once more (mount --bind).
 * @param own this process's mounts, which say where the folder lies in its file system
 * @param all the mounts to search
 */
export function bindMountsOf(
  own: readonly Mount[],
  all: readonly Mount[],
  folder: string,
): string[] {
  const home = mountOf(own, folder);
  if (home === undefined) return [];
  const inside = folder.slice(home.mountPoint === "/" ? 0 : home.mountPoint.length);
  const path = `${home.root === "/" ? "" : home.root}${inside}`;
  const isBind = (mount: Mount): boolean =>
    mount.device === home.device && isWithin(mount.root, path);
  return [...new Set(all.filter(isBind).map((mount) => mount.mountPoint))];
}
