/** What is said of a volume that is in use, over a /sys and a /proc that are made for it. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { OpContext } from "../../core/driver.js";
import { openCount } from "./dmsetup.js";
import { usesOfDevice, wordsOf } from "./uses.js";

/** No other device of a test's host has this name; /dev/null stands where a path has to lead somewhere. */
const NAME = "null";

describe("what uses a logical volume", () => {
  let folder: string;
  const write = async (name: string, text: string): Promise<void> => {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), text);
  };
  const uses = (): ReturnType<typeof usesOfDevice> =>
    usesOfDevice(NAME, { sys: join(folder, "sys"), proc: join(folder, "proc") });
  const core = "sys/kernel/config/target/core";

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "uses-"));
    await write(`sys/block/${NAME}/dev`, "253:4000\n");
    await write("proc/swaps", "Filename\t\t\tType\t\tSize\tUsed\tPriority\n");
  });
  afterEach(() => rm(folder, { recursive: true }));

  it("is nothing when nothing does", () => {
    const none = { mountPoints: [], holders: [], processes: [], loops: [], backstores: [] };
    assert.deepEqual(uses(), { ...none, isSwap: false });
  });

  it("a device made of it is named as device-mapper does", async () => {
    await write(`sys/block/${NAME}/holders/dm-9`, "");
    await write("sys/block/dm-9/dm/name", "vg0-left--over\n");
    assert.deepEqual(uses().holders, ["vg0-left--over"]);
    assert.match(wordsOf(uses()), /made of it \(dmsetup remove vg0-left--over\)/);
  });

  it("a loop device over it is named, one over something else is not", async () => {
    await write("sys/block/loop3/loop/backing_file", `/dev/${NAME}\n`);
    await write("sys/block/loop4/loop/backing_file", "/dev/zero\n");
    assert.deepEqual(uses().loops, ["loop3"]);
    assert.match(wordsOf(uses()), /loop device loop3 shows it \(losetup -d \/dev\/loop3\)/);
  });

  it("a backstore of the kernel's target on it is named, by whatever link it has it", async () => {
    // A link of udev's, as /dev/disk/by-id, is not on every host; this one is.
    const link = `/dev/fd/../../../../dev/${NAME}`;
    for (const [name, path, enable] of [
      ["iblock_7/backup", `/dev/${NAME}`, "1"],
      ["fileio_0/mine", link, "1"],
      ["iblock_8/half-made", `/dev/${NAME}`, "0"],
      ["iblock_9/other", "/dev/zero", "1"],
    ] as const) {
      await write(`${core}/${name}/udev_path`, `${path}\n`);
      await write(`${core}/${name}/enable`, `${enable}\n`);
    }
    await write(`${core}/iblock_7/hba_info`, "HBA Index: 7\n");
    assert.deepEqual(uses().backstores.toSorted(), ["backup", "mine"]);
    assert.match(wordsOf(uses()), /the kernel's target exports it as backup \(targetcli ls\)/);
  });

  it("swap on it is said, as proc(5) has it", async () => {
    await write(
      "proc/swaps",
      `Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/${NAME}                               partition\t8188\t\t0\t\t-2\n`,
    );
    assert.match(wordsOf(uses()), /it is swap \(swapoff\)/);
  });

  it("processes that have it open are named", async () => {
    await write("proc/812/comm", "qemu-system-x86\n");
    await mkdir(join(folder, "proc/812/fd"));
    await symlink(`/dev/${NAME}`, join(folder, "proc/812/fd/9"));
    await write("proc/813/comm", "cat\n");
    await mkdir(join(folder, "proc/813/fd"));
    await symlink("/dev/zero", join(folder, "proc/813/fd/9"));
    assert.deepEqual(uses().processes, ["812 (qemu-system-x86)"]);
  });

  it("the kernel's count is said with it, and when nothing else can be", () => {
    const none = uses();
    assert.match(
      wordsOf({ ...none, isSwap: true, openCount: 2 }),
      /swapoff\); .*count of it is 2$/,
    );
    assert.match(wordsOf({ ...none, openCount: 1 }), /open count of it is 1, and what has it open/);
    assert.match(wordsOf({ ...none, openCount: 0 }), /has let go of it/);
    assert.match(wordsOf(none), /^what has it open is not seen/);
  });
});

describe("the kernel's open count", () => {
  const asked = (stdout: string | Error): Promise<number | undefined> => {
    const exec = async (...command: readonly unknown[]) => {
      const args = ["info", "--columns", "--noheadings", "-o", "open", "vg0-a"];
      assert.deepEqual(command.slice(0, 2), ["dmsetup", args]);
      if (stdout instanceof Error) throw stdout;
      return { stdout, stderr: "" };
    };
    const { signal } = new AbortController();
    return openCount("vg0-a", { exec, signal } as unknown as OpContext);
  };

  it("is what dmsetup(8) says, and unknown when it says none", async () => {
    assert.equal(await asked("2\n"), 2);
    assert.equal(await asked("Device does not exist.\n"), undefined);
    assert.equal(await asked(new Error("dmsetup is not installed")), undefined);
  });
});
