import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CommandError } from "../../core/exec.js";
import { failureOf, isInUse, isTaken } from "./failures.js";

const ABOUT = { group: "vg0", pool: "pool", extentBytes: 4 * 1024 ** 2 };

function failed(stderr: string): CommandError {
  return new CommandError("lvcreate", ["-n", "x"], { stdout: "", stderr, exitCode: 5 });
}

// As LVM 2.03.16 says them.
const SAID: readonly (readonly [string, string, RegExp])[] = [
  ['  Failed to find logical volume "vg0/nope"', "not-found", /there is none/],
  ["  Snapshot origin LV nope not found in Volume group vg0.", "not-found", /there is none/],
  [
    '  Volume group "vg0" has insufficient free space (256 extents): 512 required.',
    "resource-exhausted",
    /has 1 GiB free, and it takes 2 GiB/,
  ],
  [
    "  Volume too large (28.61 PiB) for extent size 4.00 MiB. Upper limit is less than <16.00 PiB.",
    "invalid-argument",
    /larger than LVM can address/,
  ],
  ["  Pool nopool not found in Volume group vg0.", "failed-precondition", /no thin pool/],
  ["  Volume group vg1 is exported", "failed-precondition", /vgimport/],
  [
    "  Cannot access VG vg1 with system ID other with unknown local system ID.",
    "failed-precondition",
    /system ID other/,
  ],
  [
    '  Volume group "vgnope" not found\n  Cannot process volume group vgnope',
    "failed-precondition",
    /no volume group vgnope/,
  ],
  [
    '  Volume group "blocks" not found\n  Cannot process volume group blocks',
    "failed-precondition",
    /no volume group blocks/,
  ],
  [
    "  Snapshot origin volumes can be resized only while inactive: try lvchange -an.",
    "failed-precondition",
    /detach it first/,
  ],
];

// With lvmlockd, as LVM's sources have them: this host's LVM 2.03.16 is built without it.
const SAID_OF_LOCKS: readonly string[] = [
  "  Cannot access VG vg0 with lock type sanlock that requires lvmlockd.",
  "  VG vg0 lock failed: lock start in progress\n  Cannot process volume group vg0",
  "  VG vg0 lock failed: lockspace is inactive",
  "  VG vg0 lock failed: held by other host.",
  "  Global lock failed: held by other host.",
  "  Cannot access VG vg0 due to failed lock.",
  "  LV locked by other host: vg0/lvm-001\n  Failed to lock logical volume vg0/lvm-001.",
];

describe("what LVM says", () => {
  for (const stderr of SAID_OF_LOCKS)
    it(stderr.trim().slice(0, 60), () => {
      const error = failureOf(failed(stderr), "create volume lvm-001", ABOUT);
      assert.throws(
        () => {
          throw error;
        },
        { code: "failed-precondition", message: /vg0 is locked by another host/ },
      );
    });

  for (const [stderr, code, message] of SAID)
    it(stderr.trim().slice(0, 60), () => {
      const error = failureOf(failed(stderr), "create volume lvm-001", ABOUT);
      assert.throws(
        () => {
          throw error;
        },
        { code, message },
      );
    });

  it("in use, and taken, are told apart", () => {
    for (const text of [
      "  Logical volume vg0/z1 contains a filesystem in use.",
      "  Logical volume vg0/z1 in use.",
      "  Logical volume vg0/z1 is used by another device.",
    ])
      assert.ok(isInUse(failed(text)), text);
    assert.ok(isTaken(failed('  Logical Volume "q1" already exists in volume group "vg0"')));
    assert.ok(!isTaken(failed("  Logical volume vg0/z1 in use.")));
  });

  it("nothing else is guessed", () => {
    const error = failed("  Something new went wrong.");
    assert.equal(failureOf(error, "create volume lvm-001", ABOUT), error);
  });
});
