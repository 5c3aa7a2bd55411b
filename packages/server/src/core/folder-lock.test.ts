import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, symlinkSync, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, it } from "node:test";
import { LOCK_FILE, lockFolder } from "./folder-lock.js";

const scratch = mkdtempSync(join(tmpdir(), "libstorage-lock-"));
after(() => rmSync(scratch, { recursive: true, force: true }));
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(scratch, "case-"));
});

const HOLD = `
  import { lockFolder } from ${JSON.stringify(new URL("folder-lock.js", import.meta.url).href)};
  globalThis.held = await lockFolder(process.argv[1]);
  console.log("held");
  setInterval(() => {}, 1000);
`;

describe("a folder's lock", () => {
  it("is held once, until it is let go", async () => {
    const first = await lockFolder(folder);
    await assert.rejects(lockFolder(folder), {
      code: "failed-precondition",
      message: /in use by another libstorage server/,
    });
    await first.close();
    await (await lockFolder(folder)).close();
    assert.deepEqual(readdirSync(folder), [LOCK_FILE]);
  });

  it("keeps another process out, and goes with its holder, however that ends", async () => {
    const args = ["--input-type=module", "--eval", HOLD, folder];
    const holder = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
    try {
      await once(holder.stdout, "data");
      await assert.rejects(lockFolder(folder), { code: "failed-precondition" });
      holder.kill("SIGKILL");
      await once(holder, "close");
      await (await lockFolder(folder)).close();
    } finally {
      holder.kill("SIGKILL");
    }
  });

  it("says why it cannot be taken", async () => {
    await assert.rejects(lockFolder(join(folder, "none")), {
      code: "unavailable",
      message: /cannot lock .*ENOENT/,
    });
  });

  it("follows no link", async () => {
    symlinkSync(join(scratch, "elsewhere"), join(folder, LOCK_FILE));
    await assert.rejects(lockFolder(folder), { code: "unavailable" });
    assert.ok(!existsSync(join(scratch, "elsewhere")));
  });
});
