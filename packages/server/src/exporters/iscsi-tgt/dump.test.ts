import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseAccounts, parseConnections, parsePortals, parseTargets } from "./dump.js";

/** tgt 1.0.85. */
const TARGETS = `Target 5: iqn.2026-01.io.libstorage:abc:svc:vol:1-2
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 2
            Initiator: iqn.2026-01.local.test:b alias: none
            Connection: 0
                IP Address: 127.0.0.1
    LUN information:
        LUN: 0
            Type: controller
            SCSI ID: IET     00050000
            SCSI SN: beaf50
            Size: 0 MB, Block size: 1
            Online: Yes
            Removable media: No
            Prevent removal: No
            Readonly: No
            SWP: No
            Thin-provisioning: No
            Backing store type: null
            Backing store path: None
            Backing store flags: 
        LUN: 1
            Type: disk
            SCSI ID: IET     00050001
            SCSI SN: 600
            Size: 67 MB, Block size: 512
            Online: Yes
            Removable media: No
            Prevent removal: No
            Readonly: No
            SWP: No
            Thin-provisioning: Yes
            Backing store type: rdwr
            Backing store path: /tmp/tgtlab/img
            Backing store flags: 
    Account information:
        alice
        bob (outgoing)
    ACL information:
        10.0.0.0/24
        iqn.2026-01.local.test:b
Target 1879048193: iqn.2026-01.io.libstorage:x:y:z:1
    System information:
        Driver: iscsi
        State: offline
    I_T nexus information:
    LUN information:
        LUN: 0
            Type: controller
            SCSI ID: IET     700000010000
            SCSI SN: beaf18790481930
            Size: 0 MB, Block size: 1
            Online: Yes
    Account information:
    ACL information:
`;

describe("what tgtadm shows", () => {
  it("of targets", () => {
    const [first, second] = parseTargets(TARGETS);
    assert.deepEqual(first, {
      tid: 5,
      iqn: "iqn.2026-01.io.libstorage:abc:svc:vol:1-2",
      state: "ready",
      sessions: [
        {
          sid: 2,
          initiator: "iqn.2026-01.local.test:b",
          connections: [{ cid: 0, address: "127.0.0.1" }],
        },
      ],
      luns: [
        { lun: 0, serial: "beaf50", path: "None", isOnline: true },
        { lun: 1, serial: "600", path: "/tmp/tgtlab/img", isOnline: true },
      ],
      accounts: [
        { user: "alice", isOutgoing: false },
        { user: "bob", isOutgoing: true },
      ],
      acl: ["10.0.0.0/24", "iqn.2026-01.local.test:b"],
    });
    assert.deepEqual(
      [second?.tid, second?.state, second?.sessions, second?.acl, second?.accounts],
      [1_879_048_193, "offline", [], [], []],
    );
    assert.deepEqual(parseTargets(""), []);
  });

  it("of connections, portals and accounts", () => {
    const connections = `Session: 2
    Connection: 0
        Initiator: iqn.2026-01.local.test:b
        IP Address: 127.0.0.1
Session: 7
    Connection: 1
        Initiator: iqn.2026-01.local.test:c
        IP Address: fd00::1
`;
    assert.deepEqual(parseConnections(connections), [
      { sid: 2, cids: [0] },
      { sid: 7, cids: [1] },
    ]);
    assert.deepEqual(parsePortals("Portal: 127.0.0.1:3260,1\nPortal: [::]:3260,1\n"), [
      "127.0.0.1:3260",
      "[::]:3260",
    ]);
    assert.deepEqual(parseAccounts("Account list:\n    bob\n    alice\n"), ["bob", "alice"]);
  });
});
