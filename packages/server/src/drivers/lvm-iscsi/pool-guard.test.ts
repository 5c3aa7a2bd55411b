import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { fills } from "./pool-guard.js";
import type { LvRow } from "./reports.js";
import { REMOVED } from "./tags.js";

const thin: LvRow = {
  name: "lvm-000",
  dmUUID: "",
  seqno: 1,
  sizeBytes: 8,
  dataBytes: 8,
  tags: ["libstorage:vol:1/1:0123456789ab:e30"],
  origin: "",
  pool: "pool",
  segmentType: "thin",
  isActive: true,
  health: "",
  isSnapshotInvalid: false,
};

describe("what a full pool suspends", () => {
  it("is what is in it, or may be", () => {
    assert.equal(fills(thin), true);
    assert.equal(fills(undefined), true);
    assert.equal(fills({ ...thin, pool: "" }), false);
  });
  it("is nothing that is wiped to make room", () => {
    assert.equal(fills({ ...thin, tags: [REMOVED] }), false);
  });
});
