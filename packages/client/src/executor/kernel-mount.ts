/**
 * mount(2) without a process: what mount(8) does with the few kinds of arguments that volumes need, in a
 * fiftieth of the time. Whatever else is asked, and whatever fails, is left to mount(8) itself, which can do
 * more and says why it cannot.
 */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** Options of mount(8) and what they are to the kernel, from linux/mount.h. */
const FLAGS: Readonly<Record<string, number>> = {
  rw: 0,
  ro: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  sync: 16,
  dirsync: 128,
  noatime: 1024,
  nodiratime: 2048,
  relatime: 1 << 21,
};
const BIND = 4096;

/** Whether an option is the kernel's own affair, so that no file system can be one that does not know it. */
export function isOfEveryFileSystem(option: string): boolean {
  return Object.hasOwn(FLAGS, option);
}

/** Those that file systems are told in words. */
const WORDS: ReadonlySet<string> = new Set(["nouuid", "discard", "nodiscard"]);

/** File systems that no program of their own mounts. */
const TYPES: ReadonlySet<string> = new Set(["btrfs", "ext2", "ext3", "ext4", "xfs"]);

export interface KernelMount {
  readonly source: string;
  readonly target: string;
  readonly type: string;
  readonly flags: number;
  readonly data: string;
}

/** @param args of mount(8) @returns undefined for what mount(8) shall do */
export function kernelMountOf(args: readonly string[]): KernelMount | undefined {
  const dashes = args.indexOf("--");
  const [source, target, ...more] = args.slice(dashes + 1);
  if (dashes < 0 || source === undefined || target === undefined || more.length > 0)
    return undefined;
  // Relative paths and the like are not ours to understand.
  if (![source, target].every((path) => path.startsWith("/") && !path.includes("\0")))
    return undefined;
  const given = args.slice(0, dashes);
  if (given.join(" ") === "-o bind") return { source, target, type: "none", flags: BIND, data: "" };
  const [t, type = "", o, options = "", ...rest] = given;
  if (t !== "-t" || !TYPES.has(type) || rest.length > 0) return undefined;
  if (o !== undefined && o !== "-o") return undefined;
  let flags = 0;
  const words: string[] = [];
  for (const option of options === "" ? [] : options.split(",")) {
    const flag = Object.hasOwn(FLAGS, option) ? FLAGS[option] : undefined;
    if (flag === undefined && !WORDS.has(option)) return undefined;
    if (flag === undefined) words.push(option);
    else flags |= flag;
  }
  // Read-only is taken back by a later one, which is for mount(8) to know.
  if (options.split(",").includes("rw") && (flags & 1) !== 0) return undefined;
  return { source, target, type, flags, data: words.join(",") };
}

type Call = (mount: KernelMount) => Promise<number>;

let call: Promise<Call | undefined> | undefined;

/** @returns undefined where functions of the C library cannot be called */
async function open(): Promise<Call | undefined> {
  const { DataType, load, open: openLibrary } = await import("ffi-rs");
  const { String: text, I32: int, U64: long } = DataType;
  // What this process has loaded already.
  const library = "self";
  openLibrary({ library, path: "" });
  return ({ source, target, type, flags, data }) =>
    load({
      library,
      funcName: "mount",
      retType: int,
      paramsType: [text, text, text, long, text],
      paramsValue: [source, target, type, flags, data],
      // A device that does not answer holds up nobody else.
      runInNewThread: true,
    });
}

/** A device of device-mapper by its name, as mount(8) has it in the mount table; another as it is. */
export function sourceName(source: string, sys = "/sys", dev = "/dev"): string {
  const disk = /^\/dev\/(dm-\d+)$/.exec(source)?.[1];
  if (disk === undefined) return source;
  try {
    const name = readFileSync(join(sys, "class/block", disk, "dm/name"), "utf8").trim();
    const isSame = statSync(join(dev, "mapper", name)).rdev === statSync(join(dev, disk)).rdev;
    return isSame ? `/dev/mapper/${name}` : source;
  } catch {
    return source;
  }
}

/** @returns whether it was done; if not, nothing was */
export async function mountInKernel(mount: KernelMount): Promise<boolean> {
  call ??= open().catch(() => undefined);
  const source = sourceName(mount.source);
  const mounting = (await call)?.({ ...mount, source }).catch(() => -1);
  return (await mounting) === 0;
}
