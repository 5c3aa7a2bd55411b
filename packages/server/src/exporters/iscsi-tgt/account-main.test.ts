import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { accountRequest } from "./account-main.js";

describe("the request for an account", () => {
  it("is what tgtadm 1.0.85 sends (strace)", () => {
    const request = accountRequest("bob", "secretsecret12");
    const header = Buffer.alloc(120);
    header[0] = 7;
    header.write("iscsi", 8);
    header[72] = 0x99;
    header.fill(0xff, 76, 80);
    header.fill(0xff, 88, 96);
    assert.deepEqual(request.subarray(0, 120), header);
    assert.equal(request.subarray(120).toString(), "user=bob,password=secretsecret12\0");
  });
});
