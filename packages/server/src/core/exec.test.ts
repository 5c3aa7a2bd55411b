import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { CommandError, openExec } from "./exec.js";
import type { CommandRun } from "./exec.js";
import { CountedFaults } from "./faults.js";
import { SILENT } from "./log.js";

const folder = mkdtempSync(join(tmpdir(), "libstorage-exec-"));
after(() => rmSync(folder, { recursive: true, force: true }));

const runs: CommandRun[] = [];
const exec = openExec({ log: SILENT, onRun: (run) => runs.push(run) });
const free = new AbortController().signal;

async function failure(running: Promise<unknown>): Promise<CommandError> {
  try {
    await running;
  } catch (error) {
    assert.ok(error instanceof CommandError, String(error));
    return error;
  }
  assert.fail("it succeeded");
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("the exec door", () => {
  it("gives arguments as they are, with no shell in between", async () => {
    const args = ["%s|", "$HOME", "a b", "; exit 3", "`id`", "*"];
    const { stdout } = await exec("printf", args, free);
    assert.equal(stdout, "$HOME|a b|; exit 3|`id`|*|");
  });

  it("runs in the C locale and gives standard input", async () => {
    assert.equal((await exec("sh", ["-c", "echo $LC_ALL"], free)).stdout, "C\n");
    assert.equal((await exec("cat", [], free, { input: "given" })).stdout, "given");
    assert.equal((await exec("cat", [], free)).stdout, "", "an empty input, not the server's");
  });

  it("names a failing command, its exit code and its last words, and notes the run", async () => {
    runs.length = 0;
    const error = await failure(exec("sh", ["-c", "seq 9 >&2; exit 7"], free));
    assert.equal(error.exitCode, 7);
    assert.equal(error.code, "internal");
    assert.match(error.message, /sh failed with exit code 7: 5\n6\n7\n8\n9/);
    assert.deepEqual(
      runs.map(({ file, exitCode }) => ({ file, exitCode })),
      [{ file: "sh", exitCode: 7 }],
    );
  });

  it("says that a program is not installed", async () => {
    const error = await failure(exec("no-such-program-of-ours", [], free));
    assert.ok(error.isMissing);
    assert.match(error.message, /no-such-program-of-ours is not installed/);
  });

  it("ends a command at its time limit", async () => {
    const started = performance.now();
    const error = await failure(exec("sleep", ["20"], free, { timeoutMs: 100 }));
    assert.equal(error.code, "deadline-exceeded");
    assert.ok(performance.now() - started < 5000);
  });

  it("ends a command that ignores being asked to", async () => {
    const started = performance.now();
    const script = "trap '' TERM; while :; do sleep 0.1; done";
    const error = await failure(exec("sh", ["-c", script], free, { timeoutMs: 100 }));
    assert.equal(error.code, "deadline-exceeded");
    assert.ok(performance.now() - started < 8000);
  });

  it("ends a command with its request, and what the command has started", async () => {
    const cancel = new AbortController();
    let pid = 0;
    const script = "sleep 20 & echo $! > child; wait";
    const running = exec("sh", ["-c", `cd ${folder}; ${script}`], cancel.signal, {
      onStart: (id) => (pid = id),
    });
    while (!existsSync(join(folder, "child"))) await sleep(5);
    await sleep(20);
    const started = performance.now();
    cancel.abort(new Error("enough"));
    const error = await failure(running);
    assert.equal(error.code, "cancelled");
    assert.ok(performance.now() - started < 5000, "it waited for what it had started");
    const child = Number((await exec("cat", [join(folder, "child")], free)).stdout);
    for (let tries = 0; tries < 100 && isAlive(child); tries += 1) await sleep(20);
    assert.equal(isAlive(pid), false);
    assert.equal(isAlive(child), false, "what it started still runs");
  });

  it("starts nothing for a request that has ended", async () => {
    const file = join(folder, "must-not-be");
    await assert.rejects(exec("touch", [file], AbortSignal.abort(new Error("over"))), {
      code: "cancelled",
    });
    await sleep(50);
    assert.equal(existsSync(file), false);
  });

  it("bounds what a command may say", async () => {
    const script = "head -c 80000000 /dev/zero | tr '\\0' x";
    const error = await failure(exec("sh", ["-c", script], free));
    assert.match(error.message, /more than \d+ bytes of output/);
  });

  it("passes the fault plan", async () => {
    const faults = new CountedFaults(1, "fail");
    const faulty = openExec({ log: SILENT, faults });
    await assert.rejects(faulty("true", [], free), /planned failure of exec true/);
    assert.deepEqual(faults.points, [{ door: "exec", what: "true" }]);
  });
});
