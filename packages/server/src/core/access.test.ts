import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { StorageError } from "@libstorage/model";
import type { InstanceID } from "@libstorage/model";
import { decideAttach, heldBy, heldByOther, isShareable } from "./access.js";
import type { AttachmentRecord, VolumeRecord } from "./driver.js";

const host = (id: string): InstanceID => ({ id, driver: "mock", service: "" });

function volume(holders: readonly string[], fields: Record<string, string> = {}): VolumeRecord {
  const attachments: AttachmentRecord[] = holders.map((id, index) => ({
    instanceID: host(id),
    deviceName: "",
    status: "attached",
    epoch: index + 1,
    since: 1_700_000_000_000,
  }));
  return {
    id: "vol-1",
    name: "data",
    sizeBytes: 0,
    type: "",
    availabilityZone: "",
    iops: 0,
    encrypted: false,
    fields,
    attachments,
    epoch: holders.length,
    source: { kind: "none" },
  };
}

describe("access", () => {
  it("grants a free volume to anyone", () => {
    assert.deepEqual(decideAttach(volume([]), host("a"), false, false), { kind: "grant", cut: [] });
  });

  it("knows the holder again, whatever the case of its id", () => {
    const held = volume(["Host-A"]);
    assert.equal(decideAttach(held, host("host-a"), false, false).kind, "held");
    assert.equal(decideAttach(held, host("host-a"), true, false).kind, "held");
    assert.equal(heldBy(held, host("HOST-A"))?.epoch, 1);
  });

  it("refuses a second holder with the first one's name", () => {
    assert.throws(
      () => decideAttach(volume(["a"]), host("b"), false, false),
      (error: unknown) => {
        assert.ok(error instanceof StorageError);
        assert.equal(error.code, "failed-precondition");
        assert.match(error.message, /attached to a since 2023-11-14T22:13:20.000Z/);
        assert.match(error.message, /force/);
        assert.deepEqual(error.data["holders"], ["a"]);
        return true;
      },
    );
  });

  it("cuts every other holder off before a preempting one is let in", () => {
    const grant = decideAttach(volume(["a", "b"]), host("c"), true, false);
    assert.deepEqual(grant.kind === "grant" && grant.cut.map((one) => one.instanceID.id), [
      "a",
      "b",
    ]);
  });

  it("lets several hold a shareable volume, and cuts nobody off even with force", () => {
    assert.deepEqual(decideAttach(volume(["a"]), host("b"), true, true), {
      kind: "grant",
      cut: [],
    });
  });

  it("heeds the volume's own field before the service's setting", () => {
    assert.equal(isShareable(volume([]), true), true);
    assert.equal(isShareable(volume([]), false), false);
    assert.equal(isShareable(volume([], { shareable: "true" }), false), true);
    assert.equal(isShareable(volume([], { shareable: "" }), false), true);
    assert.equal(isShareable(volume([], { shareable: "false" }), true), false);
    assert.equal(isShareable(volume([], { shareable: "perhaps" }), true), false);
  });

  it("says how many more hold a volume", () => {
    assert.match(
      heldByOther(volume(["a", "b", "c"]), "remove", "wait").message,
      /a since .* and 2 more/,
    );
  });
});
