import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { quotaModeOf } from "./quota.js";

it("the kernel tells which quota is on", () => {
  const sysfs = mkdtempSync(join(tmpdir(), "sysfs-"));
  try {
    for (const uuid of ["none", "old", "groups", "simple"]) mkdirSync(join(sysfs, uuid));
    // Before Linux 6.7 there is no mode, and no simple quota.
    for (const uuid of ["old", "groups", "simple"]) mkdirSync(join(sysfs, uuid, "qgroups"));
    writeFileSync(join(sysfs, "groups/qgroups/mode"), "qgroup\n");
    writeFileSync(join(sysfs, "simple/qgroups/mode"), "squota\n");
    assert.equal(quotaModeOf("none", sysfs), undefined);
    assert.equal(quotaModeOf("old", sysfs), "qgroup");
    assert.equal(quotaModeOf("groups", sysfs), "qgroup");
    assert.equal(quotaModeOf("simple", sysfs), "simple");
  } finally {
    rmSync(sysfs, { recursive: true });
  }
});
