import assert from "node:assert/strict";
import { it } from "node:test";
import { StorageError } from "@libstorage/model";
import { openExec } from "../../core/exec.js";
import { SILENT } from "../../core/log.js";
import { failureOf } from "./failures.js";

function errno(code: string): Error {
  return Object.assign(new Error(`${code}: broken, open '/x'`), { code, errno: -1 });
}

function codeOf(error: unknown): string | undefined {
  return error instanceof StorageError ? error.code : undefined;
}

it("errors of the file system get a code and a next step", () => {
  assert.equal(codeOf(failureOf(errno("ENOSPC"), "create x")), "resource-exhausted");
  assert.equal(codeOf(failureOf(errno("EDQUOT"), "create x")), "resource-exhausted");
  assert.equal(codeOf(failureOf(errno("EROFS"), "create x")), "failed-precondition");
  assert.equal(codeOf(failureOf(errno("EACCES"), "create x")), "failed-precondition");
  assert.equal(codeOf(failureOf(errno("EIO"), "create x")), "internal");
  const { message } = failureOf(errno("ENOSPC"), "create volume vfs-001") as Error;
  assert.match(message, /^cannot create volume vfs-001: .*full; free some space/);
});

it("errors that are not the file system's stay as they are", () => {
  const own = new StorageError("not-found", "no x");
  assert.equal(failureOf(own, "x"), own);
  const other = new TypeError("bug");
  assert.equal(failureOf(other, "x"), other);
  assert.equal(codeOf(failureOf(AbortSignal.abort().reason, "x")), "cancelled");
});

it("what a command says about the file system counts", async () => {
  const exec = openExec({ log: SILENT });
  const say = (text: string) =>
    exec("sh", ["-c", 'echo "$0" >&2; exit 1', text], new AbortController().signal).then(
      () => undefined,
      (error: unknown) => failureOf(error, "copy x"),
    );
  const full = await say("cp: error writing '/x': No space left on device");
  assert.equal(codeOf(full), "resource-exhausted");
  assert.equal((full as StorageError).data["exitCode"], 1);
  assert.equal(
    codeOf(await say("cp: cannot create: Read-only file system")),
    "failed-precondition",
  );
  assert.equal(codeOf(await say("something else")), "internal");
});
