import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parseExports } from "./exportfs.js";

/** nfs-utils 2.6.2 with nfsd loaded: it shows `secure`, which nobody gave. */
const LISTED = `/srv/libstorage/s/v1  fd00::2(sync,wdelay,hide,no_subtree_check,fsid=0a5f6c1e-0000-4000-8000-000000000001,mountpoint,sec=sys,ro,secure,root_squash,no_all_squash)
/srv/libstorage/s/v1  10.99.0.2(sync,wdelay,hide,no_subtree_check,fsid=0a5f6c1e-0000-4000-8000-000000000001,mountpoint,sec=sys,rw,secure,no_root_squash,no_all_squash)
/proc  10.99.0.2(sync,wdelay,hide,no_subtree_check,sec=sys,rw,secure,root_squash,no_all_squash)
/srv/foreign  *(sync,wdelay,hide,no_subtree_check,fsid=77,sec=sys,ro,secure,root_squash,no_all_squash)
`;

describe("exportfs -s", () => {
  it("is read line by line, whatever it adds", () => {
    const found = parseExports(LISTED);
    assert.deepEqual(
      found.map(({ path, client }) => [path, client]),
      [
        ["/srv/libstorage/s/v1", "fd00::2"],
        ["/srv/libstorage/s/v1", "10.99.0.2"],
        ["/proc", "10.99.0.2"],
        ["/srv/foreign", "*"],
      ],
    );
    assert.ok(found[0]?.options.includes("ro"));
    assert.ok(found[1]?.options.includes("fsid=0a5f6c1e-0000-4000-8000-000000000001"));
  });

  it("reads paths and clients that others may have", () => {
    const text =
      '"/with space"  @netgroup(rw)\n/a\\040b  <world>(ro)\n/c  FD00:0::5(ro)\n\nrubbish\n';
    assert.deepEqual(parseExports(text), [
      { path: "/with space", client: "@netgroup", options: ["rw"] },
      { path: "/a b", client: "*", options: ["ro"] },
      { path: "/c", client: "fd00::5", options: ["ro"] },
    ]);
  });
});
