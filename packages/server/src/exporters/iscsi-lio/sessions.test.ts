import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseSessionInfo } from "./sessions.js";

/** Linux 6.1. */
const LOGGED_IN = `InitiatorName: iqn.2026-01.local.test:b
InitiatorAlias: b
LIO Session ID: 1   ISID: 0x00 02 3d 00 00 01  TSIH: 1  SessionType: Normal
Session State: TARG_SESS_STATE_LOGGED_IN
---------------------[iSCSI Session Values]-----------------------
  CmdSN/WR  :  CmdSN/WC  :  ExpCmdSN  :  MaxCmdSN  :     ITT    :     TTT
 0x00000040   0x00000040   0x00000061   0x000000a0   0x00000061   0x0000005f
----------------------[iSCSI Connections]-------------------------
CID: 0  Connection State: TARG_CONN_STATE_LOGGED_IN
   Address 10.99.0.2 TCP  StatSN: 0xab9c95fd
`;

describe("the kernel's text about a session", () => {
  it("gives its address and state", () => {
    assert.deepEqual(parseSessionInfo(LOGGED_IN), { address: "10.99.0.2", state: "logged in" });
    assert.deepEqual(parseSessionInfo(LOGGED_IN.replace("10.99.0.2", "[fd00::2]")), {
      address: "fd00::2",
      state: "logged in",
    });
    assert.equal(
      parseSessionInfo(LOGGED_IN.replace("STATE_LOGGED_IN", "STATE_FAILED"))?.state,
      "failed",
    );
  });

  it("is nothing where there is no session", () => {
    const none = "No active iSCSI Session for Initiator Endpoint: iqn.2026-01.local.test:b\n";
    assert.equal(parseSessionInfo(none), undefined);
    assert.equal(parseSessionInfo(""), undefined);
  });
});
