import assert from "node:assert/strict";
import { linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { kernelMountOf, sourceName } from "./kernel-mount.js";

const RDONLY = 1;
const NOATIME = 1024;
const BIND = 4096;

it("knows the mounts that volumes need", () => {
  assert.deepEqual(kernelMountOf(["-o", "bind", "--", "/a", "/b"]), {
    source: "/a",
    target: "/b",
    type: "none",
    flags: BIND,
    data: "",
  });
  assert.deepEqual(kernelMountOf(["-t", "ext4", "--", "/dev/x", "/b"]), {
    source: "/dev/x",
    target: "/b",
    type: "ext4",
    flags: 0,
    data: "",
  });
  const options = "nouuid,ro,noatime";
  assert.deepEqual(kernelMountOf(["-t", "xfs", "-o", options, "--", "/dev/x", "/b"]), {
    source: "/dev/x",
    target: "/b",
    type: "xfs",
    flags: RDONLY | NOATIME,
    data: "nouuid",
  });
});

it("leaves everything else to mount(8)", () => {
  for (const args of [
    // Read-only takes a second call.
    ["-o", "bind,ro", "--", "/a", "/b"],
    ["-t", "nfs4", "--", "host:/a", "/b"],
    ["-t", "ext4", "-o", "x-systemd.automount", "--", "/dev/x", "/b"],
    ["-t", "ext4", "-o", "user", "--", "/dev/x", "/b"],
    ["-t", "ext4", "-o", "ro,rw", "--", "/dev/x", "/b"],
    ["-t", "ext4", "-v", "ro", "--", "/dev/x", "/b"],
    ["-t", "ext4", "--", "UUID=1", "/b"],
    ["-t", "ext4", "--", "/dev/x", "b"],
    ["-t", "ext4", "--", "/dev/x"],
    ["-o", "bind", "/a", "/b"],
    ["--version"],
  ])
    assert.equal(kernelMountOf(args), undefined, args.join(" "));
});

it("calls a device of device-mapper by its name, where that stands for the same device", () => {
  const base = mkdtempSync(join(tmpdir(), "libstorage-dm-"));
  try {
    const [sys, dev] = [join(base, "sys"), join(base, "dev")];
    for (const [disk, name] of [
      ["dm-0", "mpatha"],
      ["dm-1", "vg0-lv"],
      ["dm-2", "gone"],
    ] as const) {
      mkdirSync(join(sys, "class/block", disk, "dm"), { recursive: true });
      writeFileSync(join(sys, "class/block", disk, "dm/name"), `${name}\n`);
      mkdirSync(join(dev, "mapper"), { recursive: true });
      writeFileSync(join(dev, disk), "");
    }
    linkSync(join(dev, "dm-0"), join(dev, "mapper/mpatha"));
    assert.equal(sourceName("/dev/dm-0", sys, dev), "/dev/mapper/mpatha");
    for (const other of ["/dev/dm-2", "/dev/dm-3", "/dev/sda", "/dev/mapper/mpatha", "/data/dm-0"])
      assert.equal(sourceName(other, sys, dev), other);
  } finally {
    rmSync(base, { recursive: true });
  }
});
