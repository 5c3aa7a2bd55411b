import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import type { OpContext } from "../../core/driver.js";
import { CommandError } from "../../core/exec.js";
import type { Exec } from "../../core/exec.js";
import { openFiles } from "../../core/files.js";
import { SILENT } from "../../core/log.js";
import { openTarget } from "./kernel.js";

const NO_MODULE = "modprobe: FATAL: Module target_core_mod not found in directory /lib/modules/6.1";

describe("a kernel's target", () => {
  const scratch = mkdtempSync(join(tmpdir(), "libstorage-configfs-"));
  after(() => rmSync(scratch, { recursive: true }));

  /** A folder for configfs, and what the host's commands do. */
  function host(act: (file: string, configfs: string) => string | undefined) {
    const configfs = mkdtempSync(join(scratch, "config-"));
    const ran: string[] = [];
    const exec: Exec = async (file, args) => {
      ran.push([file, ...args].join(" "));
      const stderr = act(file, configfs);
      if (stderr === undefined) return { stdout: "", stderr: "" };
      throw new CommandError(file, args, { stdout: "", stderr, exitCode: 1 });
    };
    const context: OpContext = {
      exec,
      signal: new AbortController().signal,
      files: openFiles(),
      log: SILENT,
      progress: () => {},
    };
    return { configfs, ran, open: () => openTarget(context, configfs) };
  }

  it("that is not there is refused with what is missing, and nothing is made", async () => {
    const { configfs, open } = host(() => NO_MODULE);
    await assert.rejects(open(), (error: Error & { code?: string }) => {
      assert.equal(error.code, "failed-precondition");
      assert.ok(error.message.includes(NO_MODULE), error.message);
      for (const word of [join(configfs, "target"), "modprobe -a", "iscsi_target_mod", "iscsi-tgt"])
        assert.ok(error.message.includes(word), `${word}: ${error.message}`);
      return true;
    });
    assert.deepEqual(readdirSync(configfs), []);
  });

  it("whose configfs is not mounted is refused with how to mount it, when that fails", async () => {
    const denied = "mount: permission denied.";
    const { configfs, ran, open } = host((file) => (file === "mount" ? denied : undefined));
    await assert.rejects(open(), {
      code: "failed-precondition",
      message: new RegExp(`${denied}.*mount -t configfs configfs ${configfs}`),
    });
    assert.deepEqual(readdirSync(configfs), []);
    assert.equal(ran.at(-1), `mount -t configfs configfs ${configfs}`);
  });

  it("without its iSCSI part is refused with the module to load", async () => {
    const { configfs, open } = host(() => NO_MODULE);
    // Nor does configfs let a folder be made in the place of a module that is not loaded.
    writeFileSync(join(configfs, "target"), "");
    await assert.rejects(open(), {
      code: "failed-precondition",
      message: /target\/iscsi cannot be made \(ENOTDIR\); run as root: modprobe iscsi_target_mod/,
    });
  });

  it("is made ready once: modules, configfs, its iSCSI part", async () => {
    const { configfs, ran, open } = host((file, folder) => {
      if (file === "mount") mkdirSync(join(folder, "target"));
      return undefined;
    });
    assert.equal(await open(), join(configfs, "target"));
    assert.deepEqual(readdirSync(join(configfs, "target")), ["iscsi"]);
    assert.match(ran[0] ?? "", /^modprobe -a target_core_mod .*iscsi_target_mod$/);
    const { length } = ran;
    assert.equal(await open(), join(configfs, "target"));
    assert.equal(ran.length, length, "nothing is loaded again");
  });
});
