/** NFS by the kernel, from host `a` to host `b`. Cutting off a writer has a suite of its own. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { until } from "./limit.js";
import { NfsHosts, ROOT, SERVICE } from "./nfs-hosts.js";

let hosts: NfsHosts;

async function overNfs(): Promise<void> {
  const { a, b } = hosts;
  const id = await hosts.create("first");
  const attachment = await hosts.attach(id);
  assert.equal(attachment.deviceName, `10.99.0.1:/srv/libstorage/fast/${id}/1`);
  await hosts.mount(attachment, "/mnt/first");
  await b.run("echo before > /mnt/first/file && chown 1000:1000 /mnt/first/file && sync");
  assert.equal(await a.run(`cat ${ROOT}/vol/${id}/file`), "before");
  assert.equal(await a.run(`stat -c %u ${ROOT}/vol/${id}/file`), "1000", "root may set owners");
  const snapshot = { ...SERVICE, volumeID: id };
  const { id: snapshotID } = await hosts.client.call("volumeSnapshot", snapshot, {
    snapshotName: "moment",
  });
  await b.run("echo after > /mnt/first/file && sync");
  const made = await hosts.client.call(
    "volumeCreateFromSnapshot",
    { ...SERVICE, snapshotID },
    { name: "second" },
  );
  await hosts.mount(await hosts.attach(made.id), "/mnt/second");
  assert.equal(await b.run("cat /mnt/second/file"), "before");
  assert.equal(await b.run("cat /mnt/first/file"), "after");
}

/** Two subvolumes of one btrfs, which have the same inode numbers: data-plane facts, 12.13. */
async function keptApart(): Promise<void> {
  const { a, b } = hosts;
  await b.run("echo 1 > /mnt/first/apart && echo 2 > /mnt/second/apart && sync");
  await b.run("echo 3 > /proc/sys/vm/drop_caches");
  assert.equal(await b.run("cat /mnt/first/apart /mnt/second/apart"), "1\n2");
  const table = (await a.run("exportfs -s")).split("\n").filter((line) => /libstorage/.test(line));
  assert.equal(table.length, 2, "each by itself, and no folder above");
  for (const line of table)
    assert.match(line, /^\/srv\/libstorage\/fast\/\S+\/\d+ +10\.99\.0\.2\(/);
  assert.equal(new Set(table.map((line) => /fsid=([\da-f-]+)/.exec(line)?.[1])).size, 2);
}

/** `exportfs -ra`, which administrators run, drops all that stands in no file. */
async function keptByReload(): Promise<void> {
  const { a, b } = hosts;
  const beforehand = await hosts.foreignExports();
  await a.run("exportfs -ra && exportfs -i -o ro,no_subtree_check,fsid=78 10.99.0.77:/usr/share");
  await b.run("echo 3 > /proc/sys/vm/drop_caches && cat /mnt/first/file && echo x > /mnt/first/x");
  await a.run("exportfs -u 10.99.0.2:/srv/libstorage/fast/$(ls /srv/libstorage/fast | head -1)/1");
  await until("what was taken out is exported again", async () => {
    return (await a.run("exportfs -s")).match(/libstorage/g)?.length === 2;
  });
  assert.deepEqual(await hosts.foreignExports(), beforehand);
}

async function handlesSurvive(): Promise<void> {
  const { a, b } = hosts;
  const reader = b.start(
    "exec 3</mnt/first/file && echo open && read go && cat <&3 && cat /mnt/first/apart && echo w > /mnt/first/w && sync && echo done",
    { keepsInput: true },
  );
  await reader.says(/open/);
  await a.run("sync");
  reader.write("go\n");
  await hosts.reboot();
  await reader.says(/done/, 180_000);
  const { stdout, stderr } = await reader.ended;
  assert.equal(stdout, "open\nafter\n1\ndone\n");
  assert.equal(stderr, "", "no stale handle");
  await hosts.exportForeign();
}

async function refusedWhenAround(): Promise<void> {
  const { a } = hosts;
  const id = await hosts.create("around");
  await a.run("exportfs -i -o rw,no_subtree_check,fsid=79 10.99.0.78:/srv/btrfs");
  await assert.rejects(
    hosts.attach(id),
    /is a part of \/srv\/btrfs.*10\.99\.0\.78.*take that export back/,
  );
  await a.run("exportfs -u 10.99.0.78:/srv/btrfs");
  await hosts.client.call("volumeRemove", { ...SERVICE, volumeID: id }, undefined);
}

async function nothingLeft(): Promise<void> {
  await hosts.b.run("umount /mnt/first /mnt/second");
  const volumes = await hosts.client.call("volumesByService", SERVICE, undefined);
  for (const id of Object.keys(volumes)) {
    await hosts.detach(id);
    await hosts.client.call("volumeRemove", { ...SERVICE, volumeID: id }, undefined);
  }
  const snapshots = await hosts.client.call("snapshotsByService", SERVICE, undefined);
  for (const id of Object.keys(snapshots))
    await hosts.client.call("snapshotRemove", { ...SERVICE, snapshotID: id }, undefined);
  await hosts.nothingLeft();
  assert.equal(await hosts.stop(), 0);
}

describe("NFS by the kernel", { timeout: 1_200_000 }, () => {
  before(async () => {
    hosts = await NfsHosts.start();
  });
  after(async () => hosts?.remove());

  it("carries a volume to another host, with snapshots", overNfs);
  it("keeps two subvolumes of one file system apart", keptApart);
  it(
    "keeps its exports when exportfs reads its files again, and makes lost ones anew",
    keptByReload,
  );
  it("serves the same handles after a reboot", handlesSurvive);
  it("refuses a volume that somebody exports as a part of something larger", refusedWhenAround);
  it("leaves nothing, and foreign exports alone", nothingLeft);
});
