/** A disk that a program has open without a file system, as a virtual machine does, is not taken from it. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import type { Exec } from "../../executor/exec.js";
import { usersOf } from "../block-use.js";
import { Deadline } from "../transport.js";
import { iscsiDoorOf } from "./door.js";
import { removeLun } from "./lun.js";
import { sessionsOf } from "./sessions.js";

const IQN = "iqn.2026-01.io.libstorage:x:y";
const DOOR = iscsiDoorOf({
  volumeID: "v",
  device: "/dev/disk/by-id/wwn-0x6001405111111112222333344445555a",
  fields: { iqn: IQN, portals: "10.0.0.1:3260", lun: "1", serial: "s" },
});
const WWID = "naa.6001405111111112222333344445555a\n";
const DEVICE = "devices/platform/host3/session1/target3:0:0/3:0:0:1";

function noLoops(): string | false {
  if (process.geteuid?.() !== 0) return "only root can make loop devices";
  try {
    execFileSync("losetup", ["--find"], { stdio: "pipe" });
    return false;
  } catch (error) {
    return `no loop device can be made: ${(error as Error).message.split("\n")[0]}`;
  }
}

describe("the disk of a LUN that goes", { skip: noLoops() }, () => {
  let folder: string;
  let sys: string;
  let loop: string;
  let program: ChildProcess | undefined;
  let commands: string[];

  const exec: Exec = async (file, args) => {
    commands.push([file, ...args].join(" "));
    return { stdout: "", stderr: "" };
  };
  const write = async (name: string, text: string): Promise<void> => {
    await mkdir(dirname(join(sys, name)), { recursive: true });
    await writeFile(join(sys, name), text);
  };
  const number = (): Promise<string> =>
    readFile(join("/sys/class/block", basename(loop), "dev"), "utf8");

  /** A program that writes to the device, until its input ends. */
  async function open(): Promise<string> {
    program = spawn("sh", ["-c", `exec 3<>${loop}; echo open; read line`], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    assert.ok(program.stdout);
    await once(program.stdout, "data");
    return `the process sh (pid ${program.pid})`;
  }
  async function end(): Promise<void> {
    const running = program;
    program = undefined;
    if (running === undefined) return;
    const ended = once(running, "exit");
    running.stdin?.end();
    await ended;
  }
  async function remove(): Promise<void> {
    const config = new ScopedConfig([new ConfigTree({})]);
    const context = { config, libFolder: sys, hostName: "h", isRoot: true, exec, places: { sys } };
    const deadline = new Deadline({ timeoutMs: 30_000, signal: new AbortController().signal });
    await removeLun(context, await sessionsOf(sys, IQN), DOOR, "v", deadline);
  }
  const refused = (device: string, user: string): Promise<void> =>
    assert.rejects(remove(), (error: { code?: string; message: string }) => {
      assert.equal(error.code, "failed-precondition");
      assert.ok(error.message.includes(`its device ${device} is used by ${user}`), error.message);
      return true;
    });

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "lun-"));
    await writeFile(join(folder, "image"), "");
    await truncate(join(folder, "image"), 1024 ** 2);
    const made = execFileSync("losetup", ["--find", "--show", join(folder, "image")]);
    loop = made.toString().trim();
  });
  after(async () => {
    execFileSync("losetup", ["--detach", loop]);
    await rm(folder, { recursive: true });
  });
  beforeEach(async () => {
    commands = [];
    sys = join(folder, "sys");
    const session = "devices/platform/host3/session1/iscsi_session/session1";
    await write(`${session}/targetname`, IQN);
    await write(`${session}/state`, "LOGGED_IN");
    await mkdir(join(sys, "class/iscsi_session"), { recursive: true });
    await symlink(join(sys, session), join(sys, "class/iscsi_session/session1"));
    await symlink("../../../session1", join(sys, session, "device"));
    await write(`${DEVICE}/type`, "0\n");
    await write(`${DEVICE}/wwid`, WWID);
    await mkdir(join(sys, DEVICE, "block/sdb"), { recursive: true });
  });
  afterEach(async () => {
    await end();
    await rm(sys, { recursive: true });
  });

  const removal = ["blockdev --flushbufs /dev/sdb", "delete"] as const;
  const deletes = (): readonly string[] =>
    commands.map((one) => (one.endsWith(`${DEVICE}/delete`) ? "delete" : one));

  it("stays while a program has it open, which is named; then it goes", async () => {
    await write("class/block/sdb/dev", await number());
    await refused("sdb", await open());
    assert.deepEqual(commands, []);
    await end();
    await remove();
    assert.deepEqual(deletes(), removal);
  });

  it("stays while a program has a partition of it open", async () => {
    await write("class/block/sdb/dev", "8:4000\n");
    await write("class/block/sdb/sdb1/dev", "");
    await write("class/block/sdb1/dev", await number());
    await refused("sdb", await open());
    assert.deepEqual(commands, []);
  });

  it("stays while a program has it open beside the map over it", async () => {
    await write("class/block/sdb/dev", await number());
    await write("class/block/sdb/holders/dm-9", "");
    await write("class/block/dm-9/dev", "253:4000\n");
    await write("class/block/dm-9/dm/uuid", "mpath-36001405111111112222333344445555a\n");
    await refused("sdb", await open());
    assert.deepEqual(commands, []);
  });

  it("is waited for when a program only looks at it", async () => {
    await write("class/block/sdb/dev", await number());
    await open();
    const removed = remove();
    setTimeout(() => void end(), 300);
    await removed;
    assert.deepEqual(deletes(), removal);
  });

  it("has no users once the program has ended", async () => {
    const user = await open();
    assert.deepEqual(await usersOf("/sys", basename(loop)), [user]);
    await end();
    assert.deepEqual(await usersOf("/sys", basename(loop)), []);
  });
});
