import assert from "node:assert/strict";
import { it } from "node:test";
import { bindMountsOf, mountOf, mountsBelow, parseMounts } from "./mounts.js";

/** Recorded on Debian 12: a bind mount, a btrfs subvolume, blanks in a path, a mount over a mount. */
const TABLE = `24 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 24 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:5 - proc proc rw
88 24 254:0 /srv/vfs/vol/vfs-001 /mnt/a\\040b rw,relatime - ext4 /dev/root rw
89 24 254:0 /srv/vfs/vol/vfs-002/data /mnt/part rw,relatime shared:7 master:3 - ext4 /dev/root rw
90 24 0:45 /@pool /srv/pool rw,relatime - btrfs /dev/loop0 rw,space_cache=v2,subvol=/@pool
91 24 0:45 /@pool/vol/vfs-003 /mnt/b rw,relatime - btrfs /dev/loop0 rw,space_cache=v2,subvol=/@pool
92 24 7:1 / /srv/quota rw,relatime - xfs /dev/loop1 rw,attr2,inode64,logbufs=8,prjquota
`;

const MOUNTS = parseMounts(TABLE);

it("reads the table of mounts", () => {
  assert.equal(MOUNTS.length, 7);
  assert.equal(MOUNTS[2]?.mountPoint, "/mnt/a b");
  assert.equal(MOUNTS[2]?.root, "/srv/vfs/vol/vfs-001");
  assert.equal(MOUNTS[3]?.fsType, "ext4");
  assert.ok(MOUNTS[6]?.options.includes("prjquota"));
  assert.deepEqual(parseMounts("\n"), []);
});

it("names with other than ASCII characters are read", () => {
  const [mount] = parseMounts("1 1 0:1 / /mnt/Grüße\\011x rw - ext4 /dev/x rw");
  assert.equal(mount?.mountPoint, "/mnt/Grüße\tx");
});

it("finds the mount that a path lies on", () => {
  assert.equal(mountOf(MOUNTS, "/srv/quota/x")?.fsType, "xfs");
  assert.equal(mountOf(MOUNTS, "/srv/quotas")?.mountPoint, "/");
  assert.equal(mountOf(MOUNTS, "/")?.mountPoint, "/");
});

it("finds bind mounts of a folder, of its parts, and of no other", () => {
  const find = (folder: string): string[] => bindMountsOf(MOUNTS, MOUNTS, folder);
  assert.deepEqual(find("/srv/vfs/vol/vfs-001"), ["/mnt/a b"]);
  assert.deepEqual(find("/srv/vfs/vol/vfs-002"), ["/mnt/part"]);
  assert.deepEqual(find("/srv/vfs/vol/vfs-00"), []);
  assert.deepEqual(find("/srv/vfs/vol/vfs-0010"), []);
  assert.deepEqual(find("/srv/pool/vol/vfs-003"), ["/mnt/b"]);
});

it("finds mounts in and on a folder", () => {
  assert.deepEqual(mountsBelow(MOUNTS, "/srv"), ["/srv/pool", "/srv/quota"]);
  assert.deepEqual(mountsBelow(MOUNTS, "/srv/quota"), ["/srv/quota"]);
  assert.deepEqual(mountsBelow(MOUNTS, "/srv/quot"), []);
});
