import assert from "node:assert/strict";
import { it } from "node:test";
import { kernelMountOf } from "./kernel-mount.js";

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
