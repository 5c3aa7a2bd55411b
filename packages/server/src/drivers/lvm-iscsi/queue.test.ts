import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CommandError } from "../../core/exec.js";
import type { Exec } from "../../core/exec.js";
import { SILENT } from "../../core/log.js";
import { LvmQueue } from "./queue.js";

const NEVER = new AbortController().signal;

function statusOf(name: string, code: number): string {
  return `{"log":[{"log_type":"status", "log_context":"shell", "log_object_type":"cmd", "log_object_name":"${name}", "log_ret_code":"${code}"}]}\n`;
}

/** A tool that does what it is told, but for commands whose line has `bad` in it. */
function fakeLvm(isTelling = true) {
  const runs: string[] = [];
  const exec: Exec = async (file, args, _signal, { input = "" } = {}) => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    runs.push([file, ...args, input].join(" ").trim());
    if (file === "lvm") {
      const lines = input.trim().split("\n");
      const status = (line: string): string =>
        statusOf(line.split(" ")[0] ?? "", line.includes("bad") ? 5 : 1);
      return { stdout: isTelling ? lines.map(status).join("") : "", stderr: "" };
    }
    if (args.includes("bad"))
      throw new CommandError(file, args, { stdout: "", stderr: "it is bad", exitCode: 5 });
    return { stdout: "", stderr: "" };
  };
  return { runs, context: { exec, signal: NEVER, log: SILENT } };
}

describe("the queue of changes", () => {
  it("runs one alone, and those that come meanwhile together", async () => {
    const { runs, context } = fakeLvm();
    const queue = new LvmQueue();
    await Promise.all(["a", "b", "c"].map((name) => queue.run(["lvcreate", "-n", name], context)));
    assert.equal(runs.length, 2);
    assert.equal(runs[0], "lvcreate -n a");
    assert.match(runs[1] ?? "", /^lvm +lvcreate --config .* -n b\nlvcreate -n c$/);
  });

  it("one that fails among others fails alone, and says why", async () => {
    const { runs, context } = fakeLvm();
    const queue = new LvmQueue();
    const all = await Promise.allSettled(
      ["a", "b", "bad", "c"].map((name) => queue.run(["lvcreate", "-n", name], context)),
    );
    assert.deepEqual(
      all.map(({ status }) => status),
      ["fulfilled", "fulfilled", "rejected", "fulfilled"],
    );
    assert.match(String((all[2] as PromiseRejectedResult).reason), /it is bad/);
    assert.equal(runs.length, 3);
  });

  it("where the shell does not tell how commands ended, each runs alone from then on", async () => {
    const { runs, context } = fakeLvm(false);
    const queue = new LvmQueue();
    const run = (name: string): Promise<void> => queue.run(["lvcreate", "-n", name], context);
    await Promise.all(["a", "b", "c"].map(run));
    await Promise.all(["d", "e"].map(run));
    const lvm = runs.filter((line) => line.startsWith("lvm"));
    assert.equal(lvm.length, 1);
    assert.deepEqual(
      runs.filter((line) => !line.startsWith("lvm")),
      ["a", "b", "c", "d", "e"].map((name) => `lvcreate -n ${name}`),
    );
  });

  it("one that is cancelled before its turn never runs", async () => {
    const { runs, context } = fakeLvm();
    const queue = new LvmQueue();
    const cancel = new AbortController();
    const first = queue.run(["lvcreate", "-n", "a"], context);
    const second = queue.run(["lvcreate", "-n", "b"], { ...context, signal: cancel.signal });
    cancel.abort();
    await first;
    await assert.rejects(second, { name: "AbortError" });
    assert.deepEqual(runs, ["lvcreate -n a"]);
  });

  it("a word that the shell would take apart, and a long command, run alone", async () => {
    const { runs, context } = fakeLvm();
    const queue = new LvmQueue();
    const long = Array.from({ length: 80 }, (_none, index) => `--addtag=t${index}`);
    await Promise.all([
      queue.run(["lvchange", "first"], context),
      queue.run(["lvchange", ...long, "second"], context),
      queue.run(["lvchange", "with space"], context),
      queue.run(["lvchange", "fourth"], context),
    ]);
    assert.deepEqual(
      runs.map((line) => line.split(" ")[0]),
      ["lvchange", "lvchange", "lvchange", "lvchange"],
    );
  });
});
