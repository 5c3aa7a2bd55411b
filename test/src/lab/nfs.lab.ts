/**
 * Volumes of a btrfs on host `a`, exported by its kernel's NFS server to host `b`, with mutual TLS between server and
 * client. `LIBSTORAGE_FENCING_RUNS`: how often a writer is cut off; 3 by default.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { InstanceID, VolumeAttachment } from "@libstorage/model";
import { certificates } from "./certificates.js";
import type { LabProcess } from "./channel.js";
import { LabServer } from "./lab-server.js";
import { until } from "./limit.js";
import { startTwoHosts } from "./network.js";
import type { Hosts } from "./network.js";
import { RemoteClient } from "./remote-client.js";

const TLS = "/etc/libstorage/tls";
const CONFIG = "/etc/libstorage/config.yml";
const ROOT = "/srv/btrfs/fast";
const OWN_FILE = "/etc/exports.d/libstorage-fast.exports";
const FENCING_RUNS = Number(process.env["LIBSTORAGE_FENCING_RUNS"] ?? 3);
const SERVICE = { service: "fast" };

const ON_A = `libstorage:
  tls:
    certFile: ${TLS}/server.crt
    keyFile: ${TLS}/server.key
    trustedCertsFile: ${TLS}/cacerts
    clientCertRequired: true
  server:
    endpoints:
      local:
        address: unix:///run/libstorage/libstorage.sock
      all:
        address: tcp://:7979
    services:
      fast:
        driver: btrfs
        btrfs:
          root: ${ROOT}
        exporter: nfs
`;

let hosts: Hosts;
let server: LabServer;
let client: RemoteClient;
let onB: InstanceID;

async function mountDisk(): Promise<void> {
  await hosts.a.run("modprobe btrfs && mkdir -p /srv/btrfs && mount /dev/vdc /srv/btrfs");
}

/** As its unit does: first what exports(5) names. The least times that the kernel takes; else a first open waits 90 s. */
async function startNfsServer(): Promise<void> {
  await hosts.a.run(`modprobe nfsd && mount -t nfsd nfsd /proc/fs/nfsd
    mkdir -p /run/rpcbind && rpcbind -w
    echo 10 > /proc/fs/nfsd/nfsv4leasetime && echo 10 > /proc/fs/nfsd/nfsv4gracetime
    exportfs -r; rpc.nfsd 4 && rpc.mountd`);
}

async function configure(): Promise<void> {
  const { a, b } = hosts;
  await a.run("mkfs.btrfs -q /dev/vdc && mkdir -p /srv/foreign /etc/exports.d");
  await a.write("/etc/exports", "/srv/foreign *(ro,no_subtree_check,fsid=77)\n");
  await mountDisk();
  await startNfsServer();
  // One that stands in no file.
  await a.run("exportfs -i -o ro,no_subtree_check,fsid=78 10.99.0.77:/usr/share");
  await a.write(CONFIG, ON_A);
  const files = certificates();
  for (const name of ["server.crt", "server.key", "cacerts"])
    await a.write(`${TLS}/${name}`, files(name), "600");
  for (const name of ["b.crt", "b.key", "cacerts"])
    await b.write(`${TLS}/${name}`, files(name), "600");
  await b.run("modprobe nfs");
  const bootID = await b.run("cat /proc/sys/kernel/random/boot_id");
  const facts = { hostName: "b", bootID, addresses: ["10.99.0.2"] };
  onB = { id: "b", driver: "btrfs", service: "fast", metadata: facts };
}

function openClient(): RemoteClient {
  return new RemoteClient(hosts.b, {
    host: "tcp://a:7979",
    tls: {
      certFile: `${TLS}/b.crt`,
      keyFile: `${TLS}/b.key`,
      trustedCertsFile: `${TLS}/cacerts`,
      clientCertRequired: false,
      verifyChain: true,
      verifyKnownHosts: false,
      knownHostsFiles: [],
    },
    repeatMs: 180_000,
    responseTimeoutMs: 180_000,
  });
}

async function create(name: string): Promise<string> {
  return (await client.call("volumeCreate", SERVICE, { name, size: 1 })).id;
}

async function attach(volumeID: string, force = false): Promise<VolumeAttachment> {
  const params = { ...SERVICE, volumeID };
  const { volume } = await client.call("volumeAttach", params, { force }, { instanceIDs: [onB] });
  return volume.attachments?.[0] ?? assert.fail("no attachment");
}

async function detach(volumeID: string): Promise<void> {
  const params = { ...SERVICE, volumeID };
  await client.call("volumeDetach", params, {}, { instanceIDs: [onB] });
}

/** Mounts what an attachment names, as the attachment says. */
async function mountOnB({ deviceName, fields = {} }: VolumeAttachment, at: string): Promise<void> {
  const { version, options } = fields;
  await hosts.b.run(
    `mkdir -p ${at} && mount -t nfs -o vers=${version},${options} ${deviceName} ${at}`,
  );
}

async function foreignExports(): Promise<string[]> {
  const lines = (await hosts.a.run("exportfs -s")).split("\n");
  return lines.filter((line) => !line.startsWith("/srv/libstorage/")).toSorted();
}

/** Everything in a volume: names, sizes, content, times. */
async function stateOf(volumeID: string): Promise<string> {
  return hosts.a.run(
    `cd ${ROOT}/vol/${volumeID} && stat -c '%n %s %Y %y %Z %z' * && md5sum * && sync`,
  );
}

async function overNfs(): Promise<void> {
  const { a, b } = hosts;
  const id = await create("first");
  const attachment = await attach(id);
  assert.equal(attachment.deviceName, `10.99.0.1:/srv/libstorage/fast/${id}/1`);
  await mountOnB(attachment, "/mnt/first");
  await b.run("echo before > /mnt/first/file && chown 1000:1000 /mnt/first/file && sync");
  assert.equal(await a.run(`cat ${ROOT}/vol/${id}/file`), "before");
  assert.equal(await a.run(`stat -c %u ${ROOT}/vol/${id}/file`), "1000", "root may set owners");
  const snapshot = { ...SERVICE, volumeID: id };
  const { id: snapshotID } = await client.call("volumeSnapshot", snapshot, {
    snapshotName: "moment",
  });
  await b.run("echo after > /mnt/first/file && sync");
  const made = await client.call(
    "volumeCreateFromSnapshot",
    { ...SERVICE, snapshotID },
    { name: "second" },
  );
  await mountOnB(await attach(made.id), "/mnt/second");
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
  const beforehand = await foreignExports();
  await a.run("exportfs -ra && exportfs -i -o ro,no_subtree_check,fsid=78 10.99.0.77:/usr/share");
  await b.run("echo 3 > /proc/sys/vm/drop_caches && cat /mnt/first/file && echo x > /mnt/first/x");
  await a.run("exportfs -u 10.99.0.2:/srv/libstorage/fast/$(ls /srv/libstorage/fast | head -1)/1");
  await until("what was taken out is exported again", async () => {
    return (await a.run("exportfs -s")).match(/libstorage/g)?.length === 2;
  });
  assert.deepEqual(await foreignExports(), beforehand);
}

async function handlesSurvive(): Promise<void> {
  const { a, b } = hosts;
  const reader = b.start(
    "exec 3</mnt/first/file && echo open && read go && cat <&3 && cat /mnt/first/apart && echo w > /mnt/first/w && sync && echo done",
    { keepsInput: true },
  );
  await reader.says(/open/);
  await a.run("sync");
  await a.restart();
  reader.write("go\n");
  await mountDisk();
  server = await LabServer.start(a, CONFIG);
  await startNfsServer();
  await reader.says(/done/, 180_000);
  const { stdout, stderr } = await reader.ended;
  assert.equal(stdout, "open\nafter\n1\ndone\n");
  assert.equal(stderr, "", "no stale handle");
  await a.run("exportfs -i -o ro,no_subtree_check,fsid=78 10.99.0.77:/usr/share");
}

/** Several, which write as fast as they can, each in another way. */
function startWriters(at: string): LabProcess[] {
  const { b } = hosts;
  return [
    b.start(`exec dd if=/dev/urandom of=${at}/sync bs=4k oflag=sync,append conv=notrunc`),
    b.start(`exec dd if=/dev/urandom of=${at}/direct bs=64k oflag=direct conv=notrunc`),
    b.start(`exec dd if=/dev/zero of=${at}/cached bs=1M count=40 conv=notrunc`),
    b.start(
      `i=0; while i=$((i+1)); do echo $i > ${at}/new-$((i%50)); sync ${at}/new-$((i%50)); done`,
    ),
  ];
}

async function preempted(round: number, volumeID: string): Promise<void> {
  const { a, b } = hosts;
  const at = `/mnt/fenced-${round}`;
  await mountOnB(await attach(volumeID), at);
  const bystander = b.start("exec dd if=/dev/zero of=/mnt/first/by bs=4k oflag=sync count=100000");
  const writers = startWriters(at);
  const path = `${ROOT}/vol/${volumeID}`;
  await until("they write", async () => {
    return Number(await a.run(`cd ${path} && ls | wc -l`)) > 3;
  });
  await a.run(`libstorage volume attach --force ${volumeID}`);
  const then = await stateOf(volumeID);
  await sleep(3_000);
  assert.equal(await stateOf(volumeID), then, "a write came after the answer");
  // Even when the old holder writes back what it still has, and comes again after the new one has left.
  await a.run(`libstorage volume detach ${volumeID}`);
  await attach(volumeID);
  await b.attempt("sync", { limitMs: 60_000 });
  await sleep(1_000);
  assert.equal(await stateOf(volumeID), then, "an old handle came to life again");
  await detach(volumeID);
  for (const writer of [...writers, bystander]) writer.signal("SIGKILL");
  await b.run(`umount -l ${at}`);
  await b.run("echo still > /mnt/first/still && sync", { limitMs: 60_000 });
}

async function fencing(): Promise<void> {
  const { a } = hosts;
  const id = await create("fenced");
  for (let round = 1; round <= FENCING_RUNS; round += 1) {
    await preempted(round, id);
    await a.run(`rm -rf ${ROOT}/vol/${id}/*`);
  }
  await client.call("volumeRemove", { ...SERVICE, volumeID: id }, undefined);
}

async function refusedWhenAround(): Promise<void> {
  const { a } = hosts;
  const id = await create("around");
  await a.run("exportfs -i -o rw,no_subtree_check,fsid=79 10.99.0.78:/srv/btrfs");
  await assert.rejects(
    attach(id),
    /is a part of \/srv\/btrfs.*10\.99\.0\.78.*take that export back/,
  );
  await a.run("exportfs -u 10.99.0.78:/srv/btrfs");
  await client.call("volumeRemove", { ...SERVICE, volumeID: id }, undefined);
}

async function nothingLeft(): Promise<void> {
  const { a, b } = hosts;
  await b.run("umount /mnt/first /mnt/second");
  const volumes = await client.call("volumesByService", SERVICE, undefined);
  for (const id of Object.keys(volumes)) {
    await detach(id);
    await client.call("volumeRemove", { ...SERVICE, volumeID: id }, undefined);
  }
  assert.equal((await foreignExports()).length, 2, "the foreign ones are there");
  assert.doesNotMatch(await a.run("exportfs -s; cat /proc/fs/nfsd/exports"), /libstorage/);
  assert.equal(await a.run("find /srv/libstorage/fast -mindepth 1"), "");
  assert.doesNotMatch(await a.run("cat /proc/mounts"), /\/srv\/libstorage/);
  assert.equal((await a.attempt(`ls ${OWN_FILE}`)).code, 2, "its file of exports");
  client.close();
  assert.equal(await server.stop(), 0);
}

describe("NFS by the kernel", { timeout: 2_400_000 + FENCING_RUNS * 120_000 }, () => {
  before(async () => {
    hosts = await startTwoHosts({ a: { diskMiB: [1024] }, b: {} });
    await configure();
    server = await LabServer.start(hosts.a, CONFIG);
    client = openClient();
  });
  after(async () => hosts?.remove());

  it("carries a volume to another host, with snapshots", overNfs);
  it("keeps two subvolumes of one file system apart", keptApart);
  it(
    "keeps its exports when exportfs reads its files again, and makes lost ones anew",
    keptByReload,
  );
  it("serves the same handles after a reboot", handlesSurvive);
  it(`lets no write of a preempted holder arrive, ${FENCING_RUNS} times`, fencing);
  it("refuses a volume that somebody exports as a part of something larger", refusedWhenAround);
  it("leaves nothing, and foreign exports alone", nothingLeft);
});
