import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigTree, ScopedConfig } from "@libstorage/model";
import type { Exec } from "../../executor/exec.js";
import { Deadline } from "../transport.js";
import { iscsiDoorOf } from "./door.js";
import { lookForLun } from "./lun.js";
import { sessionsOf } from "./sessions.js";

const IQN = "iqn.2026-01.io.libstorage:x:y";
const DOOR = iscsiDoorOf({
  volumeID: "v",
  device: "/dev/disk/by-id/wwn-0x6001405111111112222333344445555a",
  fields: { iqn: IQN, portals: "10.0.0.1:3260", lun: "1", serial: "s" },
});
const DEVICE = "devices/platform/host3/session1/target3:0:0/3:0:0:1";

describe("the disk of a LUN", () => {
  let sys: string;
  const write = async (name: string, text: string): Promise<void> => {
    await mkdir(dirname(join(sys, name)), { recursive: true });
    await writeFile(join(sys, name), text);
  };

  beforeEach(async () => {
    sys = await mkdtemp(join(tmpdir(), "sys-"));
    const session = "devices/platform/host3/session1/iscsi_session/session1";
    await write(`${session}/targetname`, IQN);
    await write(`${session}/state`, "LOGGED_IN");
    await mkdir(join(sys, "class/iscsi_session"), { recursive: true });
    await symlink(join(sys, session), join(sys, "class/iscsi_session/session1"));
    await symlink("../../../session1", join(sys, session, "device"));
  });
  afterEach(() => rm(sys, { recursive: true }));

  /** @param scan what the kernel does when it is asked the n-th time, from 1 */
  async function look(scan: (time: number) => Promise<void>, timeoutMs = 10_000) {
    let scans = 0;
    const exec: Exec = async (file, args) => {
      assert.deepEqual([file, ...args], ["tee", "--", join(sys, "class/scsi_host/host3/scan")]);
      scans += 1;
      await scan(scans);
      return { stdout: "", stderr: "" };
    };
    const [session] = await sessionsOf(sys, IQN);
    assert.ok(session);
    const config = new ScopedConfig([new ConfigTree({})]);
    const context = { config, libFolder: sys, hostName: "h", isRoot: true, exec, places: { sys } };
    const deadline = new Deadline({ timeoutMs, signal: new AbortController().signal });
    return { disk: await lookForLun(context, session, DOOR, "v", deadline), scans };
  }

  it("is waited for: it has a name a moment after the LUN was found", async () => {
    const found = await look(async () => {
      await write(`${DEVICE}/type`, "0\n");
      void sleep(300).then(() => write(`${DEVICE}/block/sdb/size`, "8\n"));
    });
    assert.deepEqual(found, { disk: "sdb", scans: 1 });
  });

  it("is looked for again when the kernel asked nothing", async () => {
    const found = await look(async (time) => {
      if (time < 2) return;
      await write(`${DEVICE}/type`, "0\n");
      await write(`${DEVICE}/block/sdb/size`, "8\n");
    });
    assert.deepEqual(found, { disk: "sdb", scans: 2 });
  });

  it("is an error, in time, when the target does not show it", async () => {
    await assert.rejects(
      look(async () => {}, 1_000),
      {
        code: "unavailable",
        message: /shows it no disk with LUN 1/,
      },
    );
  });
});
