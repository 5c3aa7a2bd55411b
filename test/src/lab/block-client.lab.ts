/**
 * The client's side of block volumes and of NFS: a storage host `a`, and a host `b` that uses its volumes through the
 * command line. Next to ours on `b`: a session and a mount that are somebody else's.
 */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Finding } from "@libstorage/client/host";
import type { VolumeMap } from "@libstorage/model";
import type { MortalPlan } from "./guest/mortal-volumes.js";
import { LabServer } from "./lab-server.js";
import { until } from "./limit.js";
import { startTwoHosts } from "./network.js";
import type { Hosts } from "./network.js";

const CONFIG = "/etc/libstorage/config.yml";
const MOUNTS = "/var/lib/libstorage/volumes";
const NAME = "iqn.2026-01.local.test:b";
const FOREIGN = "iqn.2026-01.local.foreign:disk";
const SLOW = { limitMs: 300_000 };

/** A private link between two machines that nobody else is on. */
const ON_A = `libstorage:
  server:
    insecure: true
    endpoints:
      local:
        address: unix:///run/libstorage/libstorage.sock
      all:
        address: tcp://:7979
    services:
      disks:
        driver: lvm-iscsi
        lvm-iscsi:
          volumeGroup: vg0
        exporter: iscsi-lio
        iscsi-lio:
          portals: [10.99.0.1, 10.99.0.11]
          chap:
            mode: mutual
            secretsFile: /etc/libstorage/iscsi.yml
      folders:
        driver: btrfs
        btrfs:
          root: /srv/btrfs/volumes
        exporter: nfs
`;

const onB = (secretFile: string): string => `libstorage:
  host: tcp://a:7979
  device:
    attachTimeout: 60s
iscsi:
  replacementTimeout: 20
  chap:
    userName: host-b
    secretFile: ${secretFile}
    mutual:
      userName: storage
      secretFile: /etc/libstorage/target-secret
`;

const SECRETS = [
  {
    initiator: "*",
    user: "host-b",
    secret: "own-secret-12",
    targetUser: "storage",
    targetSecret: "target-secret-1",
  },
];

let hosts: Hosts;
let server: LabServer;

async function startStorage(): Promise<void> {
  const { a } = hosts;
  await a.run(
    `modprobe -a dm-mod target_core_mod target_core_iblock target_core_file iscsi_target_mod btrfs nfsd
     mkdir -p /etc/target /etc/rtslib-fb-target && mount -t configfs none /sys/kernel/config
     ip addr add 10.99.0.11/24 dev eth0
     pvcreate -q /dev/vdc && vgcreate -q vg0 /dev/vdc
     mkfs.btrfs -q /dev/vdd && mkdir -p /srv/btrfs && mount /dev/vdd /srv/btrfs
     mount -t nfsd nfsd /proc/fs/nfsd && mkdir -p /run/rpcbind && rpcbind -w
     echo 10 > /proc/fs/nfsd/nfsv4leasetime && echo 10 > /proc/fs/nfsd/nfsv4gracetime
     rpc.nfsd 4 && rpc.mountd`,
    SLOW,
  );
  await a.write(CONFIG, ON_A);
  await a.write("/etc/libstorage/iscsi.yml", JSON.stringify(SECRETS), "600");
  // A target that is none of ours, in the way in which an administrator makes one.
  const target = `/sys/kernel/config/target/iscsi/${FOREIGN}/tpgt_1`;
  const store = "/sys/kernel/config/target/core/fileio_9/foreign";
  await a.run(
    `truncate -s 16M /srv/foreign.img && mkdir -p ${store}
     echo fd_dev_name=/srv/foreign.img,fd_dev_size=16777216 > ${store}/control && echo 1 > ${store}/enable
     mkdir -p ${target}/np/10.99.0.1:3299 ${target}/lun/lun_1 && ln -s ${store} ${target}/lun/lun_1/disk
     echo 0 > ${target}/attrib/authentication; echo 1 > ${target}/attrib/generate_node_acls
     echo 0 > ${target}/attrib/demo_mode_write_protect; echo 1 > ${target}/enable`,
  );
  server = await LabServer.start(a, CONFIG);
}

async function startClient(): Promise<void> {
  const { b } = hosts;
  await b.write(CONFIG, onB("/etc/libstorage/own-secret"));
  await b.write("/etc/libstorage/own-secret", "own-secret-12\n", "600");
  await b.write("/etc/libstorage/target-secret", "target-secret-1\n", "600");
  await b.write("/etc/libstorage/wrong-secret", "not-the-secret\n", "600");
  await b.run(
    `echo InitiatorName=${NAME} > /etc/iscsi/initiatorname.iscsi
     modprobe -a iscsi_tcp sd_mod nfs dm-multipath && iscsid
     iscsiadm -m node -o new -T ${FOREIGN} -p 10.99.0.1:3299 && iscsiadm -m node -T ${FOREIGN} -p 10.99.0.1:3299 --login
     mkdir -p ${MOUNTS}/foreign && mount -t tmpfs none ${MOUNTS}/foreign`,
  );
}

/** What of ours is on `b`: mounts, sessions, disks, records with their secrets. */
async function left(): Promise<string> {
  return hosts.b.run(
    `grep ${MOUNTS} /proc/mounts | grep -v foreign
     iscsiadm -m session 2>/dev/null | grep -v foreign
     ls /etc/iscsi/nodes | grep -v foreign
     ls -A ${MOUNTS} | grep -v foreign
     find /var/lib/libstorage/mounts /var/lib/libstorage/connections -type f -not -name '*.lock'
     ls -A /etc/iscsi | grep libstorage
     dmsetup ls | grep -v 'No devices'; true`,
  );
}

async function foreignIsThere(): Promise<void> {
  const found = await hosts.b.run(`iscsiadm -m session; cat /proc/mounts; lsblk -n -o TYPE,SIZE`);
  assert.match(found, /foreign:disk/);
  assert.match(found, new RegExp(`${MOUNTS}/foreign tmpfs`));
  assert.match(found, /disk +16M/);
}

async function volumes(): Promise<VolumeMap> {
  const text = await hosts.a.run("libstorage volume ls --json");
  const all = JSON.parse(text) as Record<string, VolumeMap>;
  return Object.assign({}, ...Object.values(all)) as VolumeMap;
}

/** Nobody has the volume, and nothing of it is on `b`. */
async function isClean(name: string): Promise<void> {
  assert.equal(await left(), "");
  const [volume] = Object.values(await volumes()).filter((one) => one.name === name);
  assert.deepEqual(volume?.attachments ?? [], []);
}

async function check(...args: string[]): Promise<readonly Finding[]> {
  const { stdout } = await hosts.b.attempt(`libstorage host check --json ${args.join(" ")}`, SLOW);
  return (JSON.parse(stdout) as { findings: Finding[] }).findings;
}

const ours = (findings: readonly Finding[]): string[] =>
  findings
    .filter(({ what }) => !what.includes("foreign"))
    .map(({ kind, state }) => `${kind} ${state}`);

async function refused(command: string): Promise<string> {
  const { code, stderr } = await hosts.b.attempt(command, SLOW);
  assert.equal(code, 1, stderr);
  return stderr;
}

async function roundTrip(): Promise<void> {
  const { a, b } = hosts;
  await b.run("libstorage volume create data --service disks --size 1");
  assert.equal(await b.run("libstorage volume mount data"), `${MOUNTS}/data/data`);
  await b.run(`head -c 20M /dev/urandom > ${MOUNTS}/data/data/file`);
  const sum = await b.run(`md5sum < ${MOUNTS}/data/data/file`);
  const processes = await b.run("cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '; true");
  assert.doesNotMatch(processes, /own-secret-12|target-secret-1/);
  await b.run("libstorage volume expand data --size 2G");
  assert.match(await b.run(`df -h --output=size ${MOUNTS}/data`), /(1\.9|2\.0)G/);
  await b.run("libstorage volume unmount data");
  await isClean("data");
  // The storage host itself gets the device, and finds what the other one wrote.
  await a.run("libstorage volume mount data");
  assert.equal(await a.run(`md5sum < ${MOUNTS}/data/data/file`), sum);
  await a.run("libstorage volume unmount data");
  assert.deepEqual(await check(), await check());
  assert.deepEqual(ours(await check("--fix")), []);
}

async function wrongPassword(): Promise<void> {
  const { b } = hosts;
  await b.write(CONFIG, onB("/etc/libstorage/wrong-secret"));
  const text = await refused("libstorage volume mount data");
  assert.match(
    text,
    /the target does not accept the name or the secret: compare iscsi.chap.userName/,
  );
  assert.doesNotMatch(text, /not-the-secret/);
  await b.run("chmod 644 /etc/libstorage/wrong-secret");
  assert.match(await refused("libstorage volume mount data"), /chmod 600/);
  await b.write(CONFIG, onB("/etc/libstorage/own-secret"));
  await isClean("data");
}

async function cutPortal(): Promise<void> {
  const { b } = hosts;
  await b.run("iptables -A OUTPUT -p tcp --dport 3260 -j DROP");
  const started = performance.now();
  assert.match(
    await refused("libstorage volume mount data"),
    /cannot log in to .*no answer in time/,
  );
  assert.ok(performance.now() - started < 180_000, "it has a limit");
  await b.run("iptables -D OUTPUT -p tcp --dport 3260 -j DROP");
  await isClean("data");
  await b.run("kill $(pidof iscsid)");
  await until("iscsid has ended", async () => (await b.attempt("pidof iscsid")).code === 1);
  assert.match(
    await refused("libstorage volume mount data"),
    /iscsid does not answer; start it with/,
  );
  await b.run("iscsid");
  await isClean("data");
}

/** mkfs waits where this says, so that the test can act in its middle. */
async function goneWhileFormatted(): Promise<void> {
  const { a, b } = hosts;
  await b.run("libstorage volume create gone --service disks --size 1");
  await b.write(
    "/usr/local/sbin/mkfs.ext4",
    `#!/bin/sh
touch /run/formatting
while [ ! -e /run/go ]; do sleep 0.1; done
exec /sbin/mkfs.ext4 "$@"
`,
    "755",
  );
  const mount = b.start("libstorage volume mount gone");
  await until(
    "it is being formatted",
    async () => (await b.attempt("test -e /run/formatting")).code === 0,
  );
  await a.run("libstorage volume detach --force gone");
  await b.run("touch /run/go");
  const { code, stderr } = await mount.ended;
  await b.run("rm /usr/local/sbin/mkfs.ext4 /run/go /run/formatting");
  assert.equal(code, 1);
  assert.match(stderr, /the device of volume \S+ went away while ext4 was being made on it/);
  await check("--fix");
  await isClean("gone");
  await b.run("libstorage volume mount gone");
  await b.run("libstorage volume unmount gone");
  await b.run("libstorage volume rm gone");
}

async function strangeContent(): Promise<void> {
  const { a, b } = hosts;
  await b.run("libstorage volume create swap --service disks --size 1");
  const device = await a.run(
    "libstorage volume attach swap --json | jq -r '.attachments[0].deviceName'",
  );
  await a.run(`mkswap ${device} && libstorage volume detach swap`);
  assert.match(
    await refused("libstorage volume mount swap"),
    /neither formatted nor mounted: .* swap/,
  );
  await isClean("swap");
  await b.run("libstorage volume rm swap");
}

async function takenAway(): Promise<void> {
  const { a, b } = hosts;
  await b.run("libstorage volume mount data");
  await a.run("libstorage volume detach --force data");
  assert.deepEqual(ours(await check()).includes("connection-without-attachment found"), true);
  // In use it is not touched.
  const reader = b.start(`exec tail -f ${MOUNTS}/data/data/file`);
  await until("it is in use", async () => (await b.attempt(`fuser -m ${MOUNTS}/data`)).code === 0);
  const busy = await check("--fix");
  assert.match(
    busy.find(({ kind }) => kind === "connection-without-attachment")?.next ?? "",
    /is used by/,
  );
  reader.signal("SIGKILL");
  await reader.ended;
  await b.run("libstorage volume unmount data", SLOW);
  await isClean("data");
  await foreignIsThere();
}

const DEATHS: readonly Pick<MortalPlan, "operation" | "at" | "when">[] = [
  { operation: "mount", at: "--op new", when: "after" },
  { operation: "mount", at: "--login", when: "after" },
  { operation: "mount", at: "/scan$", when: "after" },
  { operation: "mount", at: "^mount ", when: "before" },
  { operation: "mount", at: "^mount ", when: "after" },
  { operation: "unmount", at: "^umount", when: "after" },
  { operation: "unmount", at: "/delete$", when: "after" },
  { operation: "unmount", at: "--logout", when: "after" },
];

async function dies(plan: Pick<MortalPlan, "operation" | "at" | "when">): Promise<void> {
  const { b } = hosts;
  if (plan.operation === "unmount") await b.run("libstorage volume mount data");
  const json = JSON.stringify({ ...plan, volume: "data", service: "disks" });
  const { code } = await b.attempt(
    `node /project/test/dist/lab/guest/mortal-volumes.js '${json}'`,
    SLOW,
  );
  assert.equal(code, null, "it was killed");
  const found = await check("--fix");
  assert.ok(
    ours(found).every((one) => one.endsWith(" fixed")),
    JSON.stringify(found),
  );
  assert.ok(ours(found).length > 0);
  await isClean("data");
}

async function overNfs(): Promise<void> {
  const { a, b } = hosts;
  await b.run("libstorage volume create docs --service folders --size 1");
  await b.run("libstorage volume mount docs");
  assert.match(await b.run(`grep ${MOUNTS}/docs /proc/mounts`), /nfs4 .*vers=4.2.*hard/);
  await b.run(`echo text > ${MOUNTS}/docs/data/file && sync ${MOUNTS}/docs/data/file`);
  await a.run("libstorage volume detach --force docs");
  assert.deepEqual(ours(await check()), ["nfs-stale found"]);
  assert.deepEqual(ours(await check("--fix")), ["nfs-stale fixed"]);
  await isClean("docs");
  await b.run("libstorage volume mount docs");
  assert.equal(await b.run(`cat ${MOUNTS}/docs/data/file`), "text");
  // Its server is away: what is unmounted now goes out of sight, and the warning says what that means.
  await b.run("iptables -A OUTPUT -p tcp --dport 2049 -j DROP");
  assert.deepEqual(ours(await check()), ["nfs-silent left"]);
  const { stderr } = await b.attempt("libstorage volume unmount docs", SLOW);
  await b.run("iptables -D OUTPUT -p tcp --dport 2049 -j DROP");
  assert.ok(stderr === "" || /unmounted lazily/.test(stderr), stderr);
  await isClean("docs");
  await b.run("libstorage volume rm docs");
}

async function overTwoPaths(): Promise<void> {
  const { a, b } = hosts;
  await b.run("libstorage volume mount data");
  await b.run("libstorage volume unmount data");
  await b.run("multipathd");
  await until("multipathd runs", async () =>
    /pid/.test((await b.attempt("multipathd show daemon")).stdout),
  );
  await b.run("libstorage volume mount data", SLOW);
  assert.match(await b.run(`findmnt -n -o SOURCE ${MOUNTS}/data`), /\/dev\/mapper\//);
  assert.equal(await b.run("ls /sys/block/dm-0/slaves | wc -l"), "2");
  await a.run("ip addr del 10.99.0.11/24 dev eth0");
  await b.run(
    `dd if=/dev/zero of=${MOUNTS}/data/data/more bs=1M count=8 conv=fsync status=none`,
    SLOW,
  );
  await a.run("ip addr add 10.99.0.11/24 dev eth0");
  await b.run("libstorage volume unmount data", SLOW);
  await isClean("data");
  await b.run("multipathd shutdown");
}

describe("a host that uses volumes", { timeout: 2_400_000 }, () => {
  before(async () => {
    hosts = await startTwoHosts({ a: { diskMiB: [6144, 1024] }, b: {} });
    await startStorage();
    await startClient();
  });
  after(async () => hosts?.remove());

  it(
    "gets one over iSCSI with mutual CHAP, formats it, grows it mounted, gives it back",
    roundTrip,
  );
  it("says which password is wrong, shows none, and leaves nothing", wrongPassword);
  it("gives up a login in time, with the reason, and leaves nothing", cutPortal);
  it("names a device that goes while it is formatted", goneWhileFormatted);
  it("touches nothing that has content of another kind", strangeContent);
  it("finds a volume that was taken away, and cleans up when nobody uses it", takenAway);
  for (const plan of DEATHS)
    it(`is cleaned after a death ${plan.when} ${plan.at} of ${plan.operation}`, () => dies(plan));
  it("uses folders over NFS, and gets rid of them when they are stale or silent", overNfs);
  it("uses every path where multipathd runs, and goes on with one", overTwoPaths);
  it("has left what is not ours", async () => {
    await hosts.b.run("libstorage volume rm data");
    await foreignIsThere();
    assert.equal(await server.stop(), 0);
  });
});
