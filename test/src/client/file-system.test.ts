/** File systems of volumes on real devices: made on blank ones only, checked, mounted, grown. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { StorageError } from "@libstorage/model";
import { CommandError, mountDevice, runCommand, unmountDevice } from "@libstorage/client/host";
import type { Exec, Mounted, VolumeDevice } from "@libstorage/client/host";
import { makeFolder } from "./fixture.js";
import { cannotGrow, cannotMount } from "./host-fixture.js";
import { devicesMissing, makeDevice } from "./loop-device.js";
import type { LoopDevice } from "./loop-device.js";

const TOOLS = ["mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "blkid", "wipefs"];
const skip = cannotMount() || devicesMissing(TOOLS);
const { signal } = new AbortController();
const MIB = 1024 ** 2;
const KINDS = [
  ["ext4", 64],
  ["xfs", 320],
  ["btrfs", 256],
] as const;

describe("the file system of a volume", { skip }, () => {
  let loop: LoopDevice;
  let folder: string;
  let point: string;
  let warnings: string[];
  let commands: string[];
  /** Called before each command; what it throws is the command's failure. */
  let before: (line: string) => void;

  const exec: Exec = async (file, args, options) => {
    const line = [file, ...args].join(" ");
    commands.push(line);
    before(line);
    return runCommand(file, args, options);
  };

  function device(prove: () => Promise<string> = async () => loop.path): VolumeDevice {
    return {
      volumeID: "vol-0a1b2c3d4e5f",
      exec,
      signal,
      warn: (text) => warnings.push(text),
      prove,
    };
  }

  function mount(
    type: string,
    { options = "", isAsked = false, of = device() } = {},
  ): Promise<Mounted> {
    return mountDevice(
      { exec, isRoot: true, busyMs: 0 },
      { device: of, mountPoint: point, options, fileSystem: { type, isAsked } },
    );
  }

  async function unmount(): Promise<void> {
    const request = { mountPoint: point, removeFolder: true, signal };
    await unmountDevice({ exec, isRoot: true, busyMs: 0 }, request, () => true);
  }

  /** What no failure may change. */
  function content(): Buffer {
    const bytes = readFileSync(loop.image);
    return Buffer.concat([bytes.subarray(0, 2 * MIB), bytes.subarray(-MIB)]);
  }

  async function refused(act: () => Promise<unknown>, message: RegExp): Promise<void> {
    const old = content();
    await assert.rejects(act(), { code: "failed-precondition", message });
    assert.ok(old.equals(content()), "the device was changed");
    assert.equal(spawnSync("mountpoint", ["-q", point]).status === 0, false, "it is mounted");
    assert.ok(!commands.some((line) => line.startsWith("mkfs")), commands.join("\n"));
  }

  function put(bytes: Buffer | string, offset: number): void {
    const fd = openSync(loop.path, "r+");
    writeSync(fd, Buffer.from(bytes), 0, undefined, offset);
    closeSync(fd);
  }

  beforeEach(async () => {
    folder = await makeFolder();
    point = join(folder, "v");
    warnings = [];
    commands = [];
    before = () => {};
  });
  afterEach(async () => {
    spawnSync("umount", [point]);
    loop.remove();
    await rm(folder, { recursive: true, force: true });
  });

  for (const [type, sizeMiB] of KINDS)
    it(`${type}: made on a blank device, and kept`, async () => {
      loop = makeDevice(sizeMiB);
      const first = await mount(type);
      assert.equal(first.wasThere, false);
      assert.match(readFileSync("/proc/self/mounts", "utf8"), new RegExp(`${point} ${type} `));
      writeFileSync(join(point, "file"), "kept");
      assert.equal((await mount(type)).wasThere, true);
      await unmount();
      const label = execFileSync("blkid", ["-o", "value", "-s", "LABEL", "-p", loop.path], {
        encoding: "utf8",
      });
      assert.match(label, /^ls-/);
      commands = [];
      await mount(type);
      assert.ok(!commands.some((line) => line.startsWith("mkfs")));
      assert.equal(readFileSync(join(point, "file"), "utf8"), "kept");
      await unmount();
    });

  for (const [type, sizeMiB] of KINDS)
    it(`${type}: fitted to a device that has grown`, { skip: cannotGrow(type) }, async () => {
      loop = makeDevice(sizeMiB);
      await mount(type);
      await unmount();
      const old = sizeMiB * MIB;
      loop.grow(sizeMiB * 2);
      await mount(type);
      assert.deepEqual(warnings, []);
      const { blocks, bsize } = statfsSync(point);
      assert.ok(blocks * bsize > old, `${blocks * bsize} bytes`);
      await unmount();
    });

  for (const [type, sizeMiB] of KINDS)
    it(`${type}: a mount option that it does not know is named, without its value`, async () => {
      loop = makeDevice(sizeMiB);
      await mount(type);
      await unmount();
      const mounting = mount(type, { options: "noatime,nonsense=secret,ro" });
      const error = (await mounting.catch((one: unknown) => one)) as StorageError;
      assert.equal(error.code, "failed-precondition");
      assert.match(error.message, /may not know one of the mount options \(nonsense\)/);
      assert.doesNotMatch(error.message, /secret/);
    });

  it("damage is not blamed on options", async () => {
    loop = makeDevice(320);
    await mount("xfs");
    await unmount();
    // sb_inprogress, and a checksum that is wrong with it.
    put(Buffer.from([1]), 126);
    for (const options of ["noatime", "noatime,discard"])
      await assert.rejects(mount("xfs", { options }), /xfs may be damaged: .*xfs_repair/);
    const generic = "wrong fs type, bad option, bad superblock on /dev/x";
    before = (line) => {
      if (line.startsWith("mount "))
        throw new CommandError("mount", [], { exitCode: 32, stderr: generic }, undefined);
    };
    await assert.rejects(mount("xfs", { options: "noatime" }), /xfs may be damaged: /);
    await assert.rejects(mount("xfs", { options: "discard" }), /mount options \(discard\)/);
  });

  it("another file system is used when none was asked for, and refused when one was", async () => {
    loop = makeDevice(320);
    await mount("xfs", { isAsked: true });
    await unmount();
    commands = [];
    await refused(
      () => mount("ext4", { isAsked: true }),
      /has a file system xfs, and ext4 was asked for/,
    );
    await mount("ext4");
    assert.match(readFileSync("/proc/self/mounts", "utf8"), new RegExp(`${point} xfs `));
  });

  const strange: readonly [string, (loop: LoopDevice) => void, RegExp][] = [
    ["swap", ({ path }) => execFileSync("mkswap", ["-q", path]), /there is other swap/],
    [
      "a partition table",
      () => put(Buffer.from([0x55, 0xaa]), 510),
      /there is (a partition table|data)/,
    ],
    [
      "LVM's label",
      () => {
        put("LABELONE", 512);
        put("LVM2 001", 512 + 24);
        put(Buffer.from([1]), 512 + 8);
      },
      /there is .*(LVM2_member|data in its first MiB)/,
    ],
    [
      "data that nobody knows",
      () => put("precious", 700_000),
      /data in its first MiB that no tool recognises/,
    ],
    [
      "LUKS",
      () => put(Buffer.concat([Buffer.from("LUKS\xba\xbe", "latin1"), Buffer.from([0, 1])]), 0),
      /there is crypto crypto_LUKS/,
    ],
    [
      "a vfat file system",
      () => {
        put(Buffer.from([0xeb, 0x3c, 0x90]), 0);
        put("mkdosfs\0", 3);
        put(Buffer.from([0, 2, 4, 1, 0, 2, 0, 2, 0, 0x80, 0xf8, 0x80, 0]), 11);
        put("FAT16   ", 54);
        put(Buffer.from([0x55, 0xaa]), 510);
      },
      /file system vfat|there is/,
    ],
    [
      "a signature at the end only (RAID)",
      () => {
        // Linux RAID 1.0 stands 8 KiB before the end, rounded down to 4 KiB.
        const at = 64 * MIB - 8192;
        put(Buffer.from([0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]), at);
        const offset = Buffer.alloc(8);
        offset.writeBigUInt64LE(BigInt(at / 512));
        put(offset, at + 144);
      },
      /raid|linux_raid_member/,
    ],
    [
      "two file systems at once",
      (made) => {
        const { path } = made;
        execFileSync("mkfs.ext4", ["-q", path]);
        const ext = readFileSync(path).subarray(1024, 2048);
        made.grow(256);
        execFileSync("mkfs.btrfs", ["-q", "-f", path]);
        put(ext, 1024);
      },
      /several things at once \(.*ext4.*btrfs|several things at once \(.*btrfs.*ext4/,
    ],
  ];
  for (const [name, make, message] of strange)
    it(`refuses a device with ${name}, and changes nothing`, async () => {
      loop = makeDevice(64);
      make(loop);
      execFileSync("sync");
      await refused(() => mount("ext4"), message);
    });

  it("makes nothing on a blank device for a read-only mount", async () => {
    loop = makeDevice(64);
    await refused(() => mount("ext4", { options: "ro" }), /a read-only mount makes none/);
  });

  it("corrects what needs no decision, and says so; what needs one is refused", async () => {
    loop = makeDevice(64);
    await mount("ext4");
    await unmount();
    execFileSync("debugfs", ["-w", "-R", "set_super_value free_blocks_count 7", loop.path], {
      stdio: "ignore",
    });
    execFileSync("debugfs", ["-w", "-R", "set_super_value state 2", loop.path], {
      stdio: "ignore",
    });
    await mount("ext4");
    assert.match(warnings.join(), /e2fsck has corrected the file system/);
    mkdirSync(join(point, "folder"));
    await unmount();
    // The root folder is no folder any more: nobody may decide that but its owner.
    execFileSync("debugfs", ["-w", "-R", "set_inode_field <2> mode 0100644", loop.path], {
      stdio: "ignore",
    });
    execFileSync("debugfs", ["-w", "-R", "set_super_value state 2", loop.path], {
      stdio: "ignore",
    });
    commands = [];
    await assert.rejects(mount("ext4"), {
      code: "failed-precondition",
      message: /errors that need a decision; run "e2fsck -f/,
    });
    assert.equal(commands.at(-1), `e2fsck -p ${loop.path}`);
  });

  it("asks the device which it is right before it is formatted, and stops when it has become another", async () => {
    loop = makeDevice(64);
    let asked = 0;
    let last = 0;
    before = (line) => {
      // What it was asked right before, with no other command in between.
      if (line.startsWith("mkfs")) last = asked;
    };
    const of = device(async () => {
      asked += 1;
      if (asked === last) throw new CommandError("scsi_id", [], {}, undefined);
      return loop.path;
    });
    await mount("ext4", { of });
    await unmount();
    assert.ok(last >= 2, `asked ${last} times`);
    spawnSync("wipefs", ["-aq", loop.path]);
    spawnSync("blkdiscard", ["--zeroout", loop.path]);
    asked = 0;
    commands = [];
    await assert.rejects(mount("ext4", { of }));
    assert.equal(asked, last);
    assert.ok(!commands.some((line) => line.startsWith("mkfs")), commands.join("\n"));
  });

  it("a device that goes while it is formatted is named as the cause", async () => {
    loop = makeDevice(64);
    let isGone = false;
    before = (line) => {
      if (!line.startsWith("mkfs")) return;
      isGone = true;
      throw new CommandError(
        "mkfs.ext4",
        [],
        { exitCode: 1, stderr: "Input/output error" },
        undefined,
      );
    };
    const of = device(async () => {
      if (isGone) throw new Error("the link is gone");
      return loop.path;
    });
    await assert.rejects(mount("ext4", { of }), {
      code: "unavailable",
      message: /went away while ext4 was being made on it \(the link is gone\)/,
    });
  });

  it("a tool that is not installed is named with its package", async () => {
    loop = makeDevice(64);
    before = (line) => {
      if (line.startsWith("mkfs"))
        throw new CommandError("mkfs.xfs", [], { code: "ENOENT" }, undefined);
    };
    await assert.rejects(mount("xfs"), {
      message: /mkfs.xfs is not installed on this host: install xfsprogs/,
    });
  });

  it("a device that is mounted elsewhere is neither checked nor mounted again", async () => {
    loop = makeDevice(64);
    await mount("ext4");
    const first = point;
    point = join(folder, "w");
    commands = [];
    await assert.rejects(mount("ext4"), {
      code: "failed-precondition",
      message: /is mounted at .*\/v already/,
    });
    assert.deepEqual(commands, []);
    spawnSync("umount", [first]);
  });

  it("a mount point in use is named, and neither hidden nor cleared", async () => {
    loop = makeDevice(64);
    await mkdir(point);
    writeFileSync(join(point, "file"), "somebody's");
    await refused(() => mount("ext4"), /is not free: there is a folder with content \(file\)/);
    assert.equal(readFileSync(join(point, "file"), "utf8"), "somebody's");
  });

  it("a copy of an xfs volume is mounted beside it", async () => {
    loop = makeDevice(320);
    await mount("xfs");
    await unmount();
    const copy = makeDevice(320);
    try {
      execFileSync("cp", ["--sparse=always", loop.image, copy.image]);
      await mount("xfs");
      const other = join(folder, "copy");
      const of = { ...device(), prove: async () => copy.path };
      const host = { exec, isRoot: true, busyMs: 0 };
      await mountDevice(host, { device: of, mountPoint: other, options: "" });
      spawnSync("umount", [other]);
    } finally {
      copy.remove();
    }
  });
});
