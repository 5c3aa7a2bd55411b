import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { isSamePortal, iscsiSessions, sessionsOf } from "./sessions.js";

/** /sys of a Debian 12 with a session that has a disk and a controller, and one that is between two connections. */
const FILES: Readonly<Record<string, string>> = {
  "devices/platform/host3/session1/iscsi_session/session1/targetname": "iqn.2026-01.x:y\n",
  "devices/platform/host3/session1/iscsi_session/session1/state": "LOGGED_IN\n",
  "devices/platform/host3/session1/connection1:0/uevent": "",
  "devices/platform/host3/session1/target3:0:0/3:0:0:1/type": "0\n",
  "devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdb/size": "8\n",
  "devices/platform/host3/session1/target3:0:0/3:0:0:0/type": "12\n",
  "devices/platform/host3/session1/target3:0:0/power/control": "auto\n",
  "class/iscsi_connection/connection1:0/persistent_address": "FD00::1\n",
  "class/iscsi_connection/connection1:0/persistent_port": "3260\n",
  "devices/platform/host4/session2/iscsi_session/session2/targetname": "iqn.2026-01.x:z\n",
  "devices/platform/host4/session2/iscsi_session/session2/state": "FAILED\n",
};

describe("iSCSI sessions in /sys", () => {
  let sys: string;
  before(async () => {
    sys = await mkdtemp(join(tmpdir(), "sys-"));
    for (const [name, text] of Object.entries(FILES)) {
      await mkdir(dirname(join(sys, name)), { recursive: true });
      await writeFile(join(sys, name), text);
    }
    await mkdir(join(sys, "class/iscsi_session"));
    for (const [host, session] of [
      ["host3", "session1"],
      ["host4", "session2"],
    ] as const) {
      const at = join(sys, "devices/platform", host, session, "iscsi_session", session);
      await symlink(at, join(sys, "class/iscsi_session", session));
      await symlink("../../../session1".replace("session1", session), join(at, "device"));
    }
  });
  after(() => rm(sys, { recursive: true }));

  it("shows target, state, host, portal and devices", async () => {
    const [one, two] = await iscsiSessions(sys);
    assert.equal(one?.target, "iqn.2026-01.x:y");
    assert.equal(one.state, "LOGGED_IN");
    assert.equal(one.host, "host3");
    assert.ok(isSamePortal(one.portal, { address: "fd00::1", port: 3260 }));
    assert.deepEqual(
      one.devices.map(({ address, lun, disk, type }) => ({ address, lun, disk, type })),
      [
        { address: "3:0:0:0", lun: 0, disk: undefined, type: 12 },
        { address: "3:0:0:1", lun: 1, disk: "sdb", type: 0 },
      ],
    );
    assert.equal(two?.state, "FAILED");
    assert.equal(two.portal, undefined);
    assert.deepEqual(two.devices, []);
  });

  it("finds those of one target only, and none where there is no iSCSI", async () => {
    assert.equal((await sessionsOf(sys, "iqn.2026-01.x:z")).length, 1);
    assert.deepEqual(await sessionsOf(sys, "iqn.2026-01.x:"), []);
    assert.deepEqual(await iscsiSessions("/nowhere"), []);
  });
});
