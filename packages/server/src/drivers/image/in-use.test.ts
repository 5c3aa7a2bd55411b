/** What the locks of QEMU tell, where no look at processes would. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { openExec } from "../../core/exec.js";
import type { Exec } from "../../core/exec.js";
import { NO_FAULTS } from "../../core/faults.js";
import { openFiles } from "../../core/files.js";
import { SILENT } from "../../core/log.js";
import { userOf } from "./in-use.js";
import { isLockedForWriting } from "./qemu-img.js";

const skip = spawnSync("qemu-io", ["--version"]).error !== undefined && "qemu-io is not installed";

describe("a QEMU that has an image open", { skip }, () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "in-use-"));
  });
  after(() => rmSync(folder, { recursive: true }));

  const { signal } = new AbortController();
  const contextWith = (exec: Exec) => ({
    signal,
    exec,
    files: openFiles(NO_FAULTS, signal),
    log: SILENT,
    progress: () => {},
  });
  const context = contextWith(openExec({ log: SILENT }));

  async function whileOpen(args: readonly string[], act: () => Promise<void>): Promise<void> {
    const child = spawn("qemu-io", args, { stdio: ["pipe", "pipe", "ignore"] });
    child.stdin.write("read 0 512\n");
    await once(child.stdout, "data");
    try {
      await act();
    } finally {
      child.stdin.end("quit\n");
      await once(child, "exit");
    }
  }

  // A comma ends a value among QEMU's options.
  for (const format of ["raw", "qcow2"] as const)
    it(`is seen by its lock on a ${format} file when it may write, and is no hindrance when it reads`, async () => {
      const path = join(folder, `a,b.${format}`);
      assert.equal(spawnSync("qemu-img", ["create", "-f", format, path, "1M"]).status, 0);
      assert.equal(await isLockedForWriting(path, context), false);
      await whileOpen(["-f", format, path], async () => {
        assert.equal(await isLockedForWriting(path, context), true);
        assert.match((await userOf(path, context)) ?? "", /process \d+ \(qemu-io\)/);
      });
      await whileOpen(["-r", "-f", format, path], async () => {
        assert.equal(await isLockedForWriting(path, context), false);
        assert.equal(await userOf(path, context), undefined);
      });
    });

  it("a file that is none of QEMU's, is gone, or cannot be asked about is not in its way", async () => {
    const path = join(folder, "text");
    writeFileSync(path, "no image");
    assert.equal(await isLockedForWriting(path, context), false);
    assert.equal(await userOf(path, context), undefined);
    assert.equal(await userOf(join(folder, "gone"), context), undefined);
    const missing: Exec = (_file, args, ...more) => context.exec("no-such-tool", args, ...more);
    assert.equal(await isLockedForWriting(path, contextWith(missing)), false);
  });

  it("one that does not answer is no permission", async () => {
    const path = join(folder, "text");
    const over = AbortSignal.abort();
    await assert.rejects(isLockedForWriting(path, { ...context, signal: over }), {
      code: "cancelled",
    });
  });
});
