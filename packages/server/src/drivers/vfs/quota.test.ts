import assert from "node:assert/strict";
import { it } from "node:test";
import { openFiles } from "../../core/files.js";
import { SILENT } from "../../core/log.js";
import type { OpContext } from "../../core/driver.js";
import { parseMounts } from "../../core/mounts.js";
import { findQuota, projectIDOf, requireQuota } from "./quota.js";

function contextWith(commands: string[]): OpContext {
  return {
    signal: new AbortController().signal,
    exec: async (file, args) => {
      commands.push([file, ...args].join(" "));
      return { stdout: "", stderr: "" };
    },
    files: openFiles(),
    log: SILENT,
    progress: () => {},
  };
}

const find = (line: string, commands: string[] = []) =>
  findQuota("/srv/vfs", parseMounts(line), contextWith(commands));

const ROOT_ONLY = process.getuid?.() === 0 ? false : "only root can set project quotas";

it("says why there is no quota", async () => {
  const tmpfs = await find("1 1 0:1 / / rw - tmpfs tmpfs rw");
  assert.equal(tmpfs.quota, undefined);
  assert.match(tmpfs.detail, /the tmpfs at \/ has no project quota/);
  const ext4 = await find("1 1 0:1 / / rw - ext4 /dev/vda rw");
  assert.match(ext4.detail, /the ext4 at \/ is not mounted with prjquota/);
  const nothing = await find("");
  assert.match(nothing.detail, /not in the table of mounts/);
  assert.throws(() => requireQuota(ext4), { code: "failed-precondition", message: /prjquota/ });
});

it("limits a folder's project in KiB, and forgets it", { skip: ROOT_ONLY }, async () => {
  const commands: string[] = [];
  const { quota } = await find("1 1 0:1 / /srv rw - xfs /dev/x rw,prjquota", commands);
  assert.ok(quota !== undefined);
  const context = contextWith(commands);
  await quota.assign("/srv/vfs/vol/vfs-001", 77, context);
  await quota.limit(77, 3 * 1024 ** 3, context);
  await quota.adopt("/srv/vfs/vol/vfs-002", 78, context);
  await quota.limit(77, 0, context);
  assert.deepEqual(commands, [
    "setquota --version",
    "chattr +P -p 77 /srv/vfs/vol/vfs-001",
    "setquota -P 77 0 3145728 0 0 /srv",
    "find /srv/vfs/vol/vfs-002 -xdev -type f,d -exec chattr -p 78 {} +",
    "find /srv/vfs/vol/vfs-002 -xdev -type d -exec chattr +P {} +",
    "setquota -P 77 0 0 0 0 /srv",
  ]);
});

it("projects are stable, apart, and in the range of the tools", () => {
  const ids = new Set<number>();
  for (let number = 0; number < 5000; number += 1)
    ids.add(projectIDOf(12345, `vfs-${number + 1000}`));
  assert.equal(ids.size, 5000);
  assert.equal(projectIDOf(1, "vfs-001"), projectIDOf(1, "vfs-001"));
  assert.notEqual(projectIDOf(1, "vfs-001"), projectIDOf(2, "vfs-001"));
  for (const id of ids) assert.ok(id >= 2 ** 20 && id < 2 ** 31);
});
