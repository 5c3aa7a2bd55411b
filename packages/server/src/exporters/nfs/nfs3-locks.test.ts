import assert from "node:assert/strict";
import { it } from "node:test";
import { parseMounts } from "../../core/mounts.js";
import { whoNeedsLocks } from "./nfs3-locks.js";
import type { Beside } from "./nfs3-locks.js";

const SHARES = "/srv/libstorage";
const OWN = `${SHARES}/old/btrfs-000/1`;
const BESIDE = `${SHARES}/old/btrfs-001/4`;

/** Two mounts of subvolumes of one btrfs, and other file systems. */
const MOUNTS = parseMounts(`22 1 254:1 / / rw - ext4 /dev/vda1 rw
30 22 0:40 / /srv/btrfs rw - btrfs /dev/vdc rw
31 22 0:40 /old/vol/btrfs-000 ${OWN} rw - btrfs /dev/vdc rw
32 22 0:40 /old/vol/btrfs-001 ${BESIDE} rw - btrfs /dev/vdc rw
33 22 0:40 /old/vol/btrfs-001 ${SHARES}/old/btrfs-001/5 rw - btrfs /dev/vdc rw
34 22 0:41 / ${SHARES}/other/btrfs-000/1 rw - btrfs /dev/vdd rw
`);

const exported = (path: string, client = "10.99.0.2") => ({ path, client, options: [] });

function ask(paths: readonly ReturnType<typeof exported>[], more: Partial<Beside> = {}) {
  const beside = { sharesFolder: SHARES, hasOpenFiles: false, release: "6.1.0-40-amd64" };
  return whoNeedsLocks(OWN, { table: paths, mounts: MOUNTS, ...beside, ...more });
}

it("locks may go where every volume of the file system has one holder", () => {
  assert.equal(ask([]), undefined);
  // A host has several addresses.
  const one = [exported(OWN), exported(BESIDE), exported(BESIDE, "fd00::2")];
  assert.equal(ask(one), undefined);
  assert.equal(ask([exported("/srv/foreign"), exported("/usr/share")]), undefined, "elsewhere");
});

it("locks stay where somebody needs them, and it is said who", () => {
  const two = [exported(BESIDE), exported(`${SHARES}/old/btrfs-001/5`, "10.99.0.3")];
  assert.match(ask(two) ?? "", /old\/btrfs-001 is in the same file system, and several hosts/);
  assert.match(
    ask([exported("/srv/btrfs/x")]) ?? "",
    /\/srv\/btrfs\/x .*exports it to 10\.99\.0\.2/,
  );
});

it("a kernel that would revoke what others have open is not asked", () => {
  const hasOpenFiles = true;
  assert.equal(ask([], { hasOpenFiles }), undefined, "6.1 does not");
  assert.match(ask([], { hasOpenFiles, release: "6.12.9+deb13-amd64" }) ?? "", /Linux 6\.12/);
  assert.match(ask([], { hasOpenFiles, release: "7.0.1" }) ?? "", /NFS 4/);
  assert.equal(ask([], { release: "6.12.9" }), undefined);
});
