/** How a mount goes whose server is away: waited for, forced, and only then out of sight. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import { afterEach, beforeEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { CommandError } from "../executor/exec.js";
import type { Exec } from "../executor/exec.js";
import type { MountRecord } from "../executor/executor.js";
import { unmountNfs } from "./nfs.js";

const DEVICE = "127.0.0.1:/vol";

describe("a mount by NFS that goes", () => {
  let mountPoint: string;
  let server: Server;
  let port: number;
  let isMounted: boolean;
  let commands: string[];
  let warnings: string[];
  /** How each command ends; one that is not named hangs until its time is over. */
  let ends: Readonly<Record<string, "done" | "busy">>;

  const record = (): MountRecord => ({
    id: 1,
    parent: 0,
    major: 0,
    minor: 50,
    root: "/",
    mountPoint,
    opts: "rw",
    optional: "",
    fsType: "nfs4",
    source: DEVICE,
    vfsOpts: `rw,hard,port=${port},addr=127.0.0.1`,
  });

  const exec: Exec = async (file, args, options) => {
    const command = [file, ...args.slice(0, args.indexOf("--"))].join(" ");
    commands.push(command);
    assert.equal(args.at(-1), mountPoint);
    const end = ends[command];
    if (end === "done" && file === "umount") isMounted = false;
    if (end === "done") return { stdout: "", stderr: "" };
    if (end === "busy")
      throw new CommandError(file, args, { exitCode: 32, stderr: "target is busy" }, undefined);
    if (file === "sync") await sleep(60_000, undefined, { signal: options.signal }).catch(() => {});
    else assert.ok((options.timeoutMs ?? 0) > 0, "it has a limit");
    const failure = options.signal.aborted ? { isCanceled: true } : { timedOut: true };
    throw new CommandError(file, args, failure, undefined);
  };

  async function unmount(): Promise<void> {
    const { signal } = new AbortController();
    await unmountNfs(
      { exec, isRoot: true, busyMs: 0, unmountMs: 200 },
      DEVICE,
      { mountPoint, removeFolder: false, signal },
      (text) => warnings.push(text),
      async () => (isMounted ? [record()] : []),
    );
  }

  beforeEach(async () => {
    mountPoint = await mkdtemp(join(tmpdir(), "nfs-"));
    server = createServer((socket) => socket.on("error", () => {}).resume());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    ({ port } = server.address() as AddressInfo);
    isMounted = true;
    commands = [];
    warnings = [];
  });
  afterEach(async () => {
    server.close();
    await rm(mountPoint, { recursive: true });
  });

  it("goes out of sight when its server is away and force does not help, with a warning", async () => {
    server.close();
    ends = { "umount --lazy": "done" };
    await unmount();
    assert.deepEqual(commands, ["sync --file-system", "umount", "umount --force", "umount --lazy"]);
    assert.equal(warnings.length, 1);
    const words = [mountPoint, "unmounted lazily", "are lost", "wait until it is back"];
    for (const word of words) assert.ok(warnings[0]?.includes(word), `${word}: ${warnings[0]}`);
  });

  it("is not hidden, nor warned of, when force has helped", async () => {
    server.close();
    ends = { "umount --force": "done" };
    await unmount();
    assert.deepEqual(commands.slice(1), ["umount", "umount --force"]);
    assert.deepEqual(warnings, []);
  });

  it("fails when it cannot even be hidden", async () => {
    server.close();
    ends = {};
    await assert.rejects(unmount(), { code: "deadline-exceeded" });
    assert.equal(commands.at(-1), "umount --lazy");
    assert.deepEqual(warnings, []);
  });

  it("stays, by no force, while a program uses it and its server is there", async () => {
    ends = { "sync --file-system": "done", umount: "busy" };
    await assert.rejects(unmount(), { code: "failed-precondition", message: /is in use/ });
    assert.deepEqual(commands, ["sync --file-system", "umount"]);
    assert.ok(isMounted);
  });
});
