import assert from "node:assert/strict";
import { it } from "node:test";
import { createRequest } from "./create-request.js";

const defaults = {
  disable: false,
  implicit: true,
  size: 16,
  fsType: "ext4",
  type: "",
  availabilityZone: "",
  iops: 0,
};

// Section 16.4 of the contract: the body that the reference's client sends.
it("makes the reference's body when there are no options", () => {
  assert.equal(
    JSON.stringify(createRequest("d1", {}, defaults)),
    '{"name":"d1","availabilityZone":"","iops":0,"size":16,"type":""}',
  );
});

it("takes options without case, and hands all of them on in lower case", () => {
  const options = {
    Size: "3",
    VolumeType: "gold",
    AvailabilityZone: "z",
    Encrypted: "true",
    X: "y",
  };
  assert.deepEqual(createRequest("d", options, defaults), {
    name: "d",
    availabilityZone: "z",
    iops: 0,
    size: 3,
    type: "gold",
    encrypted: true,
    opts: { size: "3", volumetype: "gold", availabilityzone: "z", encrypted: "true", x: "y" },
  });
  assert.equal(createRequest("d", { volumeType: "a", type: "b" }, defaults).type, "b");
});

it("refuses numbers that are none", () => {
  for (const size of ["many", "-1", "1.5", "1e99"])
    assert.throws(() => createRequest("d", { size }, defaults), { code: "invalid-argument" }, size);
});
