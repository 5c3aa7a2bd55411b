/** Mounts that this process makes itself, and the command in its place. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { readMountTable, runCommand } from "@libstorage/client/host";
import { cannotMount } from "./host-fixture.js";

describe("mounts of the kernel", { skip: cannotMount() }, () => {
  const folder = mkdtempSync(join(tmpdir(), "libstorage-mount-"));
  const [from, to] = [join(folder, "from here"), join(folder, "to there")];
  const signal = new AbortController().signal;
  for (const one of [from, to]) mkdirSync(one);
  after(() => rmSync(folder, { recursive: true, force: true }));

  const mount = (...args: string[]): Promise<unknown> => runCommand("mount", args, { signal });
  const mounts = async (): Promise<number> =>
    (await readMountTable()).filter(({ mountPoint }) => mountPoint === to).length;

  it("stands, also at a path with blanks", async () => {
    writeFileSync(join(from, "f"), "seen");
    await mount("-o", "bind", "--", from, to);
    try {
      assert.equal(await mounts(), 1);
      assert.equal(readFileSync(join(to, "f"), "utf8"), "seen");
    } finally {
      spawnSync("umount", [to]);
    }
    assert.equal(await mounts(), 0);
  });

  it("says what mount(8) says when it fails", async () => {
    await assert.rejects(mount("-o", "bind", "--", join(folder, "nowhere"), to), (error: Error) => {
      assert.match(error.message, /^mount failed with exit code \d+: .*nowhere/);
      return true;
    });
    assert.equal(await mounts(), 0);
  });

  it("is not begun for a call that was ended", async () => {
    const ended = AbortSignal.abort();
    await assert.rejects(
      runCommand("mount", ["-o", "bind", "--", from, to], { signal: ended }),
      /was stopped/,
    );
    assert.equal(await mounts(), 0);
  });
});
