import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, it } from "node:test";
import { CountedFaults } from "./faults.js";
import { TEMPORARY_PREFIX, openFiles } from "./files.js";

const TRACED = "trace=fsync,fdatasync,rename,renameat,renameat2,mkdir,unlink";
const scratch = mkdtempSync(join(tmpdir(), "libstorage-files-"));
after(() => rmSync(scratch, { recursive: true, force: true }));
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(scratch, "case-"));
});

describe("the files door", () => {
  it("gives an attribute its value in one piece, and makes none", async () => {
    const files = openFiles();
    const path = join(folder, "attribute");
    await assert.rejects(files.writeAttribute(path, "1"), { code: "ENOENT" });
    writeFileSync(path, "0");
    await files.writeAttribute(path, "1");
    assert.equal(readFileSync(path, "utf8"), "1");
  });

  it("makes a link once, and never another in its place", async () => {
    const files = openFiles();
    const [target, path] = [join(folder, "target"), join(folder, "link")];
    mkdirSync(target);
    for (let time = 0; time < 2; time++) await files.link(target, path);
    assert.equal(readlinkSync(path), target);
    await assert.rejects(files.link(folder, path), { code: "EEXIST" });
  });

  it("removes a folder that is empty, or not there", async () => {
    const files = openFiles();
    const path = join(folder, "sub");
    mkdirSync(join(path, "below"), { recursive: true });
    await assert.rejects(files.removeFolder(path), { code: "ENOTEMPTY" });
    for (let time = 0; time < 2; time++) await files.removeFolder(join(path, "below"));
    await files.removeFolder(path);
    assert.ok(!existsSync(path));
  });

  it("can be hit at an attribute, a link and a folder", async () => {
    const path = join(folder, "attribute");
    writeFileSync(path, "0");
    await assert.rejects(openFiles(new CountedFaults(1, "fail")).writeAttribute(path, "1"));
    await assert.rejects(openFiles(new CountedFaults(1, "fail")).link(folder, join(folder, "l")));
    await assert.rejects(openFiles(new CountedFaults(1, "kill-before")).removeFolder(folder));
    assert.equal(readFileSync(path, "utf8"), "0");
    assert.deepEqual(readdirSync(folder), ["attribute"]);
  });

  it("writes a file as a whole, readable by its owner only", async () => {
    const path = join(folder, "record");
    await openFiles().write(path, "one");
    await openFiles().write(path, "two");
    assert.equal(readFileSync(path, "utf8"), "two");
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.deepEqual(readdirSync(folder), ["record"]);
  });

  it("leaves the old file, and no other, when a write is hit anywhere", async () => {
    const path = join(folder, "record");
    await openFiles().write(path, "old");
    const counting = new CountedFaults(0, "fail");
    await openFiles(counting).write(path, "old");
    const points = counting.points.map(({ what }) => what.split(" ")[0]);
    assert.deepEqual(points, ["write", "rename", "sync"]);
    for (const at of [1, 2])
      for (const mode of ["fail", "kill-before"] as const) {
        await assert.rejects(openFiles(new CountedFaults(at, mode)).write(path, "new"));
        assert.equal(readFileSync(path, "utf8"), "old", `${mode} at ${at}`);
        if (mode === "fail") assert.deepEqual(readdirSync(folder), ["record"]);
      }
    const left = readdirSync(folder).filter((name) => name !== "record");
    assert.ok(left.length > 0 && left.every((name) => name.startsWith(TEMPORARY_PREFIX)));
  });

  it("takes what is there, or not there, as it is", async () => {
    const files = openFiles();
    await files.unlink(join(folder, "none"));
    await files.removeTree(join(folder, "none"));
    await files.makeFolder(join(folder, "made"));
    await files.makeFolder(join(folder, "made"));
    writeFileSync(join(folder, "file"), "");
    await assert.rejects(files.makeFolder(join(folder, "file")), { code: "EEXIST" });
    symlinkSync(join(folder, "made"), join(folder, "link"));
    await assert.rejects(files.makeFolder(join(folder, "link")), { code: "EEXIST" });
  });

  it("removes a link and not what it leads to", async () => {
    mkdirSync(join(folder, "kept"));
    writeFileSync(join(folder, "kept", "file"), "");
    mkdirSync(join(folder, "tree"));
    symlinkSync(join(folder, "kept"), join(folder, "tree", "link"));
    symlinkSync(join(folder, "kept"), join(folder, "link"));
    await openFiles().removeTree(join(folder, "tree"));
    await openFiles().removeTree(join(folder, "link"));
    assert.deepEqual(readdirSync(folder), ["kept"]);
    assert.ok(existsSync(join(folder, "kept", "file")));
  });

  it("stops what hangs with its request", async () => {
    const cancel = new AbortController();
    const faults = new CountedFaults(1, "hang");
    const running = openFiles(faults, cancel.signal).write(join(folder, "record"), "x");
    cancel.abort(new Error("enough"));
    await assert.rejects(running, /enough/);
    assert.deepEqual(readdirSync(folder), []);
  });

  const strace = spawnSync("strace", ["-V"]).status === 0;
  it(
    "syncs the file before it gets its name, and the folder after",
    { skip: strace ? false : "strace is not installed" },
    (t) => {
      const module = new URL("files.js", import.meta.url).href;
      const script = `
        import { openFiles } from ${JSON.stringify(module)};
        const files = openFiles();
        await files.write("record", "text");
        await files.unlink("record");
        await files.makeFolder("made");
      `;
      const trace = join(folder, "trace");
      const { status, stderr } = spawnSync(
        "strace",
        [
          "-f",
          "-o",
          trace,
          "-e",
          TRACED,
          process.execPath,
          "--input-type=module",
          "--eval",
          script,
        ],
        { cwd: folder, encoding: "utf8" },
      );
      if (status !== 0 && /ptrace|not permitted/i.test(stderr)) {
        t.skip("strace may not trace here");
        return;
      }
      const calls = readFileSync(trace, "utf8")
        .split("\n")
        .filter((line) => !/= -1 |resumed|\+\+\+|---/.test(line))
        .map((line) => /^\d+ +(\w+)\(/.exec(line)?.[1]?.replace(/^rename.*/, "rename"))
        .filter((call) => call !== undefined);
      assert.deepEqual(calls, [
        "fdatasync",
        "rename",
        "fsync",
        "unlink",
        "fsync",
        "mkdir",
        "fsync",
      ]);
    },
  );
});
