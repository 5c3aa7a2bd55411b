import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readlinkSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { CommandError, openExec } from "./exec.js";
import type { CommandRun } from "./exec.js";
import { CountedFaults } from "./faults.js";
import { SILENT } from "./log.js";
import type { KernelCall } from "./kernel-call.js";

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
  it("gives further variables, but no other locale", async () => {
    const env = { MORE: "yes", LC_ALL: "de_DE" };
    const { stdout } = await exec("sh", ["-c", "echo $MORE $LC_ALL"], free, { env });
    assert.equal(stdout, "yes C\n");
  });

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

  it("keeps the answers of many commands apart, whatever they say", async () => {
    const said = await Promise.all(
      Array.from({ length: 40 }, (_, n) =>
        exec("sh", ["-c", `sleep 0.0${n % 9}; echo é${n}`], free),
      ),
    );
    assert.deepEqual(
      said.map(({ stdout }) => stdout),
      said.map((_, n) => `é${n}\n`),
    );
    const { stdout } = await exec("sh", ["-c", "head -c 8000000 /dev/zero | tr '\\0' x"], free);
    assert.equal(stdout.length, 8_000_000);
  });

  it("names what cannot be started", async () => {
    const bad = await failure(exec("true", ["a\0b"], free));
    assert.match(bad.message, /true could not be started: .*null bytes/);
    const folderError = await failure(exec(folder, [], free));
    assert.match(folderError.message, /could not be started: .*EACCES/);
    assert.equal(folderError.isMissing, false);
  });

  it("joins two commands, and notes both", async () => {
    runs.length = 0;
    const into = { file: "wc", args: ["-c"] };
    const { stdout } = await exec("head", ["-c", "30000000", "/dev/zero"], free, { into });
    assert.equal(stdout, "30000000\n");
    assert.deepEqual(
      runs.map(({ file, exitCode }) => ({ file, exitCode })),
      [
        { file: "head", exitCode: 0 },
        { file: "wc", exitCode: 0 },
      ],
    );
  });

  it("of joined commands, names the one that failed first, and ends the other", async () => {
    const sh = (script: string) => ({ file: "sh", args: ["-c", script] });
    const cases = [
      ["echo no >&2; exit 3", "cat >/dev/null; echo cut >&2; exit 4", 3],
      ["cat /dev/zero", "echo full >&2; exit 4", 4],
      // It does not write, so that no pipe breaks for it.
      ["sleep 30", "exit 5", 5],
      ["exit 6", "cat", 6],
      ["trap '' TERM; cat /dev/zero; echo Connection reset by peer >&2; exit 104", "exit 7", 7],
      ["echo", "cat; kill -9 $$", -1],
    ] as const;
    const started = performance.now();
    for (const [first, second, exitCode] of cases) {
      runs.length = 0;
      const error = await failure(exec("sh", ["-c", first], free, { into: sh(second) }));
      assert.equal(error.exitCode, exitCode, first);
      assert.equal(runs.length, 2, first);
    }
    assert.ok(performance.now() - started < 20_000);
  });

  it("ends joined commands with their request", async () => {
    const cancel = new AbortController();
    const pids = join(folder, "joined");
    const running = exec("sh", ["-c", `echo $$ >> ${pids}; exec sleep 30`], cancel.signal, {
      into: { file: "sh", args: ["-c", `echo $$ >> ${pids}; exec sleep 30`] },
    });
    const started = async (): Promise<number[]> =>
      existsSync(pids)
        ? (await exec("cat", [pids], free)).stdout.trim().split("\n").map(Number)
        : [];
    while ((await started()).length < 2) await sleep(5);
    cancel.abort(new Error("enough"));
    assert.equal((await failure(running)).code, "cancelled");
    for (const pid of await started()) assert.ok(await waitForEnd(pid), "it runs on");
  });

  it("says which of joined commands cannot be started", async () => {
    const none = "no-such-program-of-ours";
    for (const [first, second] of [
      ["true", none],
      [none, "cat"],
      ["yes", none],
    ] as const) {
      const error = await failure(exec(first, [], free, { into: { file: second, args: [] } }));
      assert.ok(error.isMissing, `${first} ${second}`);
      assert.match(error.message, /no-such-program-of-ours is not installed/);
    }
    const into = { file: "cat", args: ["a\0b"] };
    const bad = await failure(exec("sleep", ["30"], free, { into }));
    assert.match(bad.message, /cat could not be started: .*null bytes/);
  });

  describe("with a call of the kernel that does the same", () => {
    /** FIGETBSZ of linux/fs.h writes the size of a block into the argument, on every file system. */
    const blockSize = { folder, request: 2, argument: new Uint8Array(8) };
    const isKnown = ["arm64", "x64"].includes(process.arch);
    const skip = isKnown ? false : `the numbers of ${process.arch} are not known`;
    const say = (inKernel: KernelCall) => exec("echo", ["run"], free, { inKernel: [inKernel] });

    it("starts nothing when that is enough", { skip }, async () => {
      assert.equal((await say(blockSize)).stdout, "");
      // A block is a multiple of 512 bytes, so that the lowest byte of its size is 0.
      assert.equal((await say({ ...blockSize, zeroAt: 0 })).stdout, "");
      const all = await Promise.all(Array.from({ length: 40 }, () => say(blockSize)));
      // Those beyond the threads that there are are run.
      assert.ok(all.every(({ stdout }) => ["", "run\n"].includes(stdout)));
      assert.equal((await say(blockSize)).stdout, "");
    });

    it("runs the command when there is more to tell, or it is refused", { skip }, async () => {
      const link = join(folder, "link");
      symlinkSync(folder, link);
      const others: Partial<KernelCall>[] = [
        { argument: new Uint8Array(8).fill(9), zeroAt: 7 },
        { request: 0x5aa5 },
        { folder: join(folder, "missing") },
        { folder: link },
        { source: join(folder, "missing") },
      ];
      for (const other of others)
        assert.equal((await say({ ...blockSize, ...other })).stdout, "run\n");
    });

    it("runs the command when one of several is refused", { skip }, async () => {
      const refused = { ...blockSize, request: 0x5aa5 };
      const both = (inKernel: KernelCall[]) => exec("echo", ["run"], free, { inKernel });
      assert.equal((await both([blockSize, blockSize])).stdout, "");
      assert.equal((await both([blockSize, refused])).stdout, "run\n");
    });

    it("starts nothing for a request that ended meanwhile", { skip }, async () => {
      const cancel = new AbortController();
      const file = join(folder, "not-touched");
      const refused = { ...blockSize, request: 0x5aa5 };
      const running = exec("touch", [file], cancel.signal, { inKernel: [refused] });
      cancel.abort(new Error("enough"));
      await assert.rejects(running, { code: "cancelled" });
      await exec("true", [], free);
      assert.equal(existsSync(file), false);
    });

    it("passes the fault plan", async () => {
      const faulty = openExec({ log: SILENT, faults: new CountedFaults(1, "fail") });
      const running = faulty("echo", [], free, { inKernel: [blockSize] });
      await assert.rejects(running, /planned failure of exec echo/);
    });
  });

  it("passes the fault plan", async () => {
    const faults = new CountedFaults(1, "fail");
    const faulty = openExec({ log: SILENT, faults });
    await assert.rejects(faulty("true", [], free), /planned failure of exec true/);
    assert.deepEqual(faults.points, [{ door: "exec", what: "true" }]);
    const joined = new CountedFaults(2, "fail");
    const into = { file: "cat", args: ["-"] };
    const other = openExec({ log: SILENT, faults: joined });
    await assert.rejects(other("echo", [], free, { into }), /planned failure of exec cat -/);
    assert.equal(joined.passed, 2);
  });
});

/** The process that starts the commands of this one. */
async function spawnerPID(): Promise<number> {
  return Number((await exec("sh", ["-c", "echo $PPID"], free)).stdout);
}

async function waitForEnd(pid: number): Promise<boolean> {
  for (let tries = 0; tries < 250 && isAlive(pid); tries += 1) await sleep(20);
  return !isAlive(pid);
}

describe("the spawner", () => {
  it("starts the commands in place of this process, without leaving traces in them", async () => {
    const spawner = await spawnerPID();
    assert.notEqual(spawner, process.pid);
    assert.equal(await spawnerPID(), spawner, "one for all");
    assert.doesNotMatch((await exec("env", [], free)).stdout, /NODE_CHANNEL/);
    const open = (await exec("ls", ["-l", `/proc/self/fd`], free)).stdout;
    const channel = readlinkSync(`/proc/${spawner}/fd/3`);
    assert.match(channel, /^socket:/);
    assert.ok(!open.includes(channel), "a command must not keep the channel open");
  });

  it("ended in the middle: the command ends and is reported, and the next one works", async () => {
    const spawner = await spawnerPID();
    let pid = 0;
    const running = exec("sleep", ["30"], free, {
      onStart: (started) => {
        pid = started;
        process.kill(spawner, "SIGKILL");
      },
    });
    const error = await failure(running);
    assert.equal(error.code, "unavailable");
    assert.equal(error.exitCode, -1);
    assert.match(error.message, /process that starts commands has ended; try again/);
    assert.ok(await waitForEnd(pid), "it runs on, and nobody knows of it");
    assert.notEqual(await spawnerPID(), spawner);
    assert.equal((await exec("echo", ["again"], free)).stdout, "again\n");
  });

  it("does not end with what is meant for the server", async () => {
    const spawner = await spawnerPID();
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.kill(spawner, signal);
    await sleep(50);
    assert.equal(await spawnerPID(), spawner);
  });

  /** Another server that runs a command. @returns its exit code, and whether the command has ended */
  async function serverThat(does: string): Promise<{ exitCode: number | null; hasEnded: boolean }> {
    const script = `
      const { openExec } = await import(process.argv[1]);
      const log = { debug() {} };
      const exec = openExec({ log });
      const { signal } = new AbortController();
      await exec("true", [], signal);
      ${does}`;
    const url = new URL("exec.js", import.meta.url).href;
    const server = spawn(process.execPath, ["--input-type=module", "-e", script, url], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let pid = 0;
    server.stdout.on("data", (text: Buffer) => {
      pid = Number(text.toString());
      if (does.includes("KILLED")) server.kill("SIGKILL");
    });
    const [exitCode] = (await once(server, "exit")) as [number | null];
    return { exitCode, hasEnded: pid === 0 || (await waitForEnd(pid)) };
  }

  it("ends both of two joined commands of a server that was killed", async () => {
    const file = join(folder, "both");
    const does = `const { existsSync } = await import("node:fs");
      void exec("sleep", ["30"], signal, { into: { file: "sh", args: ["-c",
      "echo $$ > ${file}; exec sleep 30"] }, onStart: (pid) => {
        const look = () => existsSync(${JSON.stringify(file)})
          ? process.stdout.write(String(pid)) : setTimeout(look, 10); // is KILLED then
        look();
      } });`;
    const { hasEnded } = await serverThat(does);
    assert.ok(hasEnded);
    const second = Number((await exec("cat", [file], free)).stdout);
    assert.ok(await waitForEnd(second), "the second one runs on");
  });

  const RUN = `void exec("sleep", ["30"], signal, { onStart: (pid) => {
    process.stdout.write(String(pid));
    DONE
  } });`;

  it("ends the commands of a server that was killed", async () => {
    const { exitCode, hasEnded } = await serverThat(RUN.replace("DONE", "/* is KILLED here */"));
    assert.equal(exitCode, null);
    assert.ok(hasEnded, "it would come after the recovery of the next server");
  });

  it("ends the commands of a server that stops", async () => {
    assert.deepEqual(
      await serverThat(RUN.replace("DONE", "setImmediate(() => process.exit(3));")),
      { exitCode: 3, hasEnded: true },
    );
  });

  it("keeps no process from ending, unless a command runs", async () => {
    const started = performance.now();
    assert.deepEqual(await serverThat(""), { exitCode: 0, hasEnded: true });
    assert.ok(performance.now() - started < 10_000);
    const waits = `void exec("sleep", ["0.3"], signal).then(() => { process.exitCode = 7; });`;
    assert.deepEqual(await serverThat(waits), { exitCode: 7, hasEnded: true });
  });
});
