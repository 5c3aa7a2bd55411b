import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseCache, parseClient } from "./nfsd.js";

const INFO = `clientid: 0x603832656b019265
address: "10.99.0.2:959"
status: confirmed
seconds from last renew: 1
name: "Linux NFSv4.2 b"
minor version: 2
callback state: UP
callback address: 10.99.0.2:0
`;

const CONTENT = `#path domain(flags)
/srv	10.99.0.2(ro,insecure,no_root_squash,sync,no_wdelay,no_subtree_check,v4root,uuid=daf89b8e:49384553:8b3c68a1:95854273,sec=390003:390004:390005:1)
/srv/libstorage/s/v2	10.99.0.2(rw,no_root_squash,sync,wdelay,no_subtree_check,uuid=0a5f6c1e:00004000:80000000:00000002,sec=1)
# /srv/pending 10.99.0.3
`;

describe("nfsd", () => {
  it("tells who a client is", () => {
    assert.deepEqual(parseClient("3", INFO), {
      number: "3",
      address: "10.99.0.2",
      name: "Linux NFSv4.2 b",
      status: "confirmed",
    });
    const v6 = INFO.replace("10.99.0.2:959", "[fd00::2]:959");
    assert.equal(parseClient("3", v6)?.address, "fd00::2");
    assert.equal(parseClient("3", ""), undefined, "it has just gone");
  });

  it("tells who has asked for what", () => {
    assert.deepEqual(parseCache(CONTENT), [
      { path: "/srv", client: "10.99.0.2" },
      { path: "/srv/libstorage/s/v2", client: "10.99.0.2" },
    ]);
  });
});
