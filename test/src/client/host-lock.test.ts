import assert from "node:assert/strict";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { runCommand, withHostLock } from "@libstorage/client/host";
import { ended, makeFolder, start } from "./fixture.js";

const CHILD = fileURLToPath(new URL("lock-child.js", import.meta.url));
const never = new AbortController().signal;

describe("the lock of this host", () => {
  let folder: string;
  let lock: string;
  let file: string;
  beforeEach(async () => {
    // Longer than the path of a socket may be.
    folder = join(await makeFolder(), "long".repeat(30));
    await mkdir(folder);
    lock = join(folder, "volume.lock");
    file = join(folder, "count");
    await writeFile(file, "0");
  });
  afterEach(() => rm(join(folder, ".."), { recursive: true, force: true }));

  const hold = <T>(act: () => Promise<T>, waitMs = 5_000, signal = never): Promise<T> =>
    withHostLock(runCommand, lock, { waitMs, signal }, act);

  it("lets one in at a time, of several processes and within one", async () => {
    const children = Array.from({ length: 4 }, () => start(CHILD, [lock, file, "15"]));
    const own = Array.from({ length: 10 }, () =>
      hold(async () => {
        const value = Number(await readFile(file, "utf8"));
        await writeFile(file, String(value + 1));
      }, 30_000),
    );
    await Promise.all([...own, ...children.map(ended)]);
    assert.equal(await readFile(file, "utf8"), "70");
    assert.deepEqual(await readdir(folder), ["count"], "nothing is left");
  });

  it("goes to the next when its process is killed, to one of those that wait", async () => {
    for (let round = 0; round < 5; round += 1) {
      await writeFile(file, "0");
      const victim = start(CHILD, [lock, file, "100000"]);
      const others = Array.from({ length: 3 }, () => start(CHILD, [lock, file, "10"]));
      const seen = others.map(ended);
      let isUnderWay = false;
      victim.stdout?.on("data", () => (isUnderWay = true));
      while (!isUnderWay) await new Promise((resolve) => setTimeout(resolve, 5));
      victim.kill("SIGKILL");
      const { stdout } = await ended(victim);
      for (const { code, stderr } of await Promise.all(seen)) assert.equal(code, 0, stderr);
      const added = Number(await readFile(file, "utf8"));
      // What the victim said before it was listened to is not known; the others' thirty are.
      assert.ok(added >= 30 + stdout.length, `${added} after ${stdout.length}`);
    }
  });

  it("names the process that has it when the time is up, and ends with its caller", async () => {
    await hold(async () => {
      await assert.rejects(
        hold(async () => assert.fail("it has it already"), 300),
        {
          code: "aborted",
          message: new RegExp(`another process of this host works .*pid ${process.pid}`),
        },
      );
      const signal = AbortSignal.timeout(200);
      await assert.rejects(
        hold(async () => assert.fail("it has it already"), 20_000, signal),
        { code: "cancelled" },
      );
    });
    assert.equal(await hold(async () => "free"), "free");
  });

  it("takes a file that is no lock for one that nobody holds", async () => {
    await writeFile(lock, "123");
    assert.equal(await hold(async () => "mine"), "mine");
  });
});
