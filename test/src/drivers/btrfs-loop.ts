/** btrfs services on a loop device of their own. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { lstatSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DRIVERS } from "@libstorage/server";
import type { Harness, Place } from "../conformance/fixture.js";
import { scratchParent } from "../faults/folders.js";
import { loopMissing, makeLoop } from "../loop.js";
import type { LoopFileSystem, LoopOptions } from "../loop.js";

export type LoopQuota = "off" | "simple" | "qgroup";

export const BTRFS_LOOP: LoopOptions = {
  type: "btrfs",
  sizeMiB: 4096,
  parent: scratchParent(),
};

/** BTRFS_IOC_QUOTA_CTL with BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA, for btrfs-progs before 6.7. */
const ENABLE_SIMPLE = `
opendir(my $folder, $ARGV[0]) or die "$ARGV[0]: $!";
open(my $handle, "<", $ARGV[0]) or die "$ARGV[0]: $!";
my $arguments = pack("QQ", 4, 0);
defined ioctl($handle, (3 << 30) | (16 << 16) | (0x94 << 8) | 40, $arguments) or die "ioctl: $!";`;

/** @returns why that quota cannot be had, or undefined */
export function switchQuotaOn(folder: string, quota: LoopQuota): string | undefined {
  if (quota === "off") return undefined;
  const flags = quota === "simple" ? ["--simple"] : [];
  const tool = spawnSync("btrfs", ["quota", "enable", ...flags, folder], { encoding: "utf8" });
  if (tool.status === 0) return undefined;
  if (quota === "qgroup") return `btrfs quota enable: ${tool.stderr}`;
  const perl = spawnSync("perl", ["-e", ENABLE_SIMPLE, folder], { encoding: "utf8" });
  return perl.status === 0 ? undefined : `no simple quota: ${perl.error?.message ?? perl.stderr}`;
}

/** Why there can be no btrfs with that quota here, or false. It is tried out. */
export function btrfsMissing(quota: LoopQuota = "off"): string | false {
  const reason = loopMissing(BTRFS_LOOP);
  if (reason !== false || quota === "off") return reason;
  const loop = makeLoop(BTRFS_LOOP);
  if (typeof loop === "string") return loop;
  try {
    return switchQuotaOn(loop.folder, quota) ?? false;
  } finally {
    loop.remove();
  }
}

export function makeBtrfs(options: Partial<LoopOptions> = {}): LoopFileSystem {
  const loop = makeLoop({ ...BTRFS_LOOP, ...options });
  assert.ok(typeof loop !== "string", "it could be made a moment ago");
  return loop;
}

/** Deletes a folder with all subvolumes in it, the deepest first. */
export function removeWithSubvolumes(folder: string): void {
  const visit = (path: string): void => {
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory()) visit(join(path, entry.name));
    if (lstatSync(path).ino === 256) spawnSync("btrfs", ["subvolume", "delete", path]);
  };
  visit(folder);
  rmSync(folder, { recursive: true, force: true });
}

/** An empty root below `folder`. */
export function placeIn(folder: string, quota = "auto"): Place {
  const root = mkdtempSync(join(folder, "btrfs-"));
  return {
    open: (context) => DRIVERS.btrfs.open({ root, quota }, context),
    leftovers: async () => [...readdirSync(join(root, "vol")), ...readdirSync(join(root, "snap"))],
    close: async () => removeWithSubvolumes(root),
  };
}

const READ_ONLY = 'a snapshot is a read-only subvolume: see "a snapshot cannot be written"';
const AT_ONCE = "a snapshot of a subvolume is one step, however much is in it";

export const DIFFERS: Readonly<Record<string, string>> = {
  "a snapshot is not changed with its source, nor the source with it": READ_ONLY,
  "a copy of a snapshot is not changed with its source, nor the source with it": READ_ONLY,
  ...Object.fromEntries(
    ["a copy", "a snapshot", "a copy of a snapshot", "a volume from a snapshot"].map((way) => [
      `${way} tells its progress in bytes up to the end`,
      AT_ONCE,
    ]),
  ),
};

export function btrfsHarness(quota: LoopQuota, hasDoors: Harness["hasDoors"]): Harness {
  let loop: LoopFileSystem | undefined;
  return {
    isDurable: true,
    hasFolders: true,
    hasDoors,
    differs: DIFFERS,
    skip: btrfsMissing(quota),
    before: async () => {
      loop = makeBtrfs();
      assert.equal(switchQuotaOn(loop.folder, quota), undefined);
    },
    after: async () => loop?.remove(),
    place: async () => placeIn(loop?.folder ?? "", quota),
  };
}
