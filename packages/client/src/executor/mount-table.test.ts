import assert from "node:assert/strict";
import { it } from "node:test";
import { mountsAt, parseMountTable } from "./mount-table.js";

// proc_pid_mountinfo(5) and a table of a real host.
const TABLE = String.raw`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
40 36 0:35 / /mnt/a\040b\134c rw shared:2 master:3 - tmpfs none rw,size=1k
41 36 254:1 /vol/vfs-000//deleted /srv/x rw - ext4 /dev/vda1 rw
42 36 254:1 /data /srv/x ro,relatime - ext4 /dev/vda1 rw
43 36 0:50 / /mnt/\303\274 rw - nfs4 host:/export\040one rw
garbage
`;

it("reads the kernel's mount table", () => {
  const table = parseMountTable(TABLE);
  assert.equal(table.length, 5);
  assert.deepEqual(table[0], {
    id: 36,
    parent: 35,
    major: 98,
    minor: 0,
    root: "/mnt1",
    mountPoint: "/mnt2",
    opts: "rw,noatime",
    optional: "master:1",
    fsType: "ext3",
    source: "/dev/root",
    vfsOpts: "rw,errors=continue",
  });
  assert.equal(table[1]?.mountPoint, String.raw`/mnt/a b\c`);
  assert.equal(table[1]?.optional, "shared:2 master:3");
  assert.equal(table[4]?.mountPoint, "/mnt/ü");
  assert.equal(table[4]?.source, "host:/export one");
});

it("finds the mounts on exactly one point, the top one last", () => {
  const roots = mountsAt(parseMountTable(TABLE), "/srv/x").map(({ root }) => root);
  assert.deepEqual(roots, ["/vol/vfs-000//deleted", "/data"]);
  assert.deepEqual(mountsAt(parseMountTable(TABLE), "/srv"), []);
});
