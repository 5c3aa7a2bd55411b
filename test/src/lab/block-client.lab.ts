/** The client's side of block volumes and of NFS, through the command line: what works, and what is refused. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { BlockHosts, CONFIG, MOUNTS, onB, ours, SLOW } from "./block-hosts.js";
import { until } from "./limit.js";

let block: BlockHosts;

async function roundTrip(): Promise<void> {
  const { a, b } = block.hosts;
  assert.equal(await b.run("libstorage volume mount data", SLOW), `${MOUNTS}/data/data`);
  await b.run(`head -c 20M /dev/urandom > ${MOUNTS}/data/data/file`);
  const sum = await b.run(`md5sum < ${MOUNTS}/data/data/file`);
  const processes = await b.run("cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '; true");
  assert.doesNotMatch(processes, /own-secret-12|target-secret-1/);
  await b.run("libstorage volume expand data --size 2G", SLOW);
  assert.match(await b.run(`df -h --output=size ${MOUNTS}/data`), /(1\.9|2\.0)G/);
  await b.run("libstorage volume unmount data", SLOW);
  await block.isClean("data");
  // The storage host itself gets the device, and finds what the other one wrote.
  await a.run("libstorage volume mount data", SLOW);
  assert.equal(await a.run(`md5sum < ${MOUNTS}/data/data/file`), sum);
  await a.run("libstorage volume unmount data", SLOW);
  assert.deepEqual(ours(await block.check("--fix")), []);
}

async function wrongPassword(): Promise<void> {
  const { b } = block.hosts;
  await b.write(CONFIG, onB("/etc/libstorage/wrong-secret"));
  const text = await block.refused("libstorage volume mount data");
  assert.match(
    text,
    /the target does not accept the name or the secret: compare iscsi.chap.userName/,
  );
  assert.doesNotMatch(text, /not-the-secret/);
  await b.run("chmod 644 /etc/libstorage/wrong-secret");
  assert.match(await block.refused("libstorage volume mount data"), /chmod 600/);
  await b.write(CONFIG, onB("/etc/libstorage/own-secret"));
  await block.isClean("data");
}

async function cutPortal(): Promise<void> {
  const { b } = block.hosts;
  await b.run("iptables -A OUTPUT -p tcp --dport 3260 -j DROP");
  const started = performance.now();
  assert.match(
    await block.refused("libstorage volume mount data"),
    /cannot log in to .*no answer in time/,
  );
  assert.ok(performance.now() - started < 280_000, "it has a limit");
  await b.run("iptables -D OUTPUT -p tcp --dport 3260 -j DROP");
  await block.isClean("data");
  await b.run("kill $(pidof iscsid)");
  await until("iscsid has ended", async () => (await b.attempt("pidof iscsid")).code === 1);
  assert.match(
    await block.refused("libstorage volume mount data"),
    /iscsid does not answer; start it with/,
  );
  await b.run("iscsid");
  await block.isClean("data");
}

/** mkfs waits where this says, so that the test can act in its middle. */
async function goneWhileFormatted(): Promise<void> {
  const { a, b } = block.hosts;
  await b.run("libstorage volume create gone --service disks --size 1", SLOW);
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
  const early = mount.ended.then(({ stderr }) => assert.fail(`it ended before: ${stderr}`));
  early.catch(() => {});
  const isFormatting = async (): Promise<boolean> =>
    (await b.attempt("test -e /run/formatting")).code === 0;
  await Promise.race([until("it is being formatted", isFormatting, SLOW.limitMs), early]);
  await a.run("libstorage volume detach --force gone", SLOW);
  await b.run("touch /run/go");
  const { code, stderr } = await mount.ended;
  await b.run("rm /usr/local/sbin/mkfs.ext4 /run/go /run/formatting");
  assert.equal(code, 1);
  assert.match(stderr, /the device of volume \S+ went away while ext4 was being made on it/);
  await block.check("--fix");
  await block.isClean("gone");
  await b.run("libstorage volume mount gone", SLOW);
  await b.run("libstorage volume unmount gone", SLOW);
  await b.run("libstorage volume rm gone", SLOW);
}

async function strangeContent(): Promise<void> {
  const { a, b } = block.hosts;
  await b.run("libstorage volume create swap --service disks --size 1", SLOW);
  const device = await a.run(
    "libstorage volume attach swap --json | jq -r '.attachments[0].deviceName'",
    SLOW,
  );
  await a.run(`mkswap ${device} && libstorage volume detach swap`);
  assert.match(
    await block.refused("libstorage volume mount swap"),
    /neither formatted nor mounted: .* swap/,
  );
  await block.isClean("swap");
  await b.run("libstorage volume rm swap", SLOW);
}

async function takenAway(): Promise<void> {
  const { a, b } = block.hosts;
  await b.run("libstorage volume mount data", SLOW);
  await a.run("libstorage volume detach --force data", SLOW);
  assert.deepEqual(ours(await block.check()).includes("connection-without-attachment found"), true);
  // As long as it is mounted it is not touched.
  const busy = await block.check("--fix");
  assert.match(
    busy.find(({ kind }) => kind === "connection-without-attachment")?.next ?? "",
    /is used by/,
  );
  await b.run("libstorage volume unmount data", SLOW);
  await block.isClean("data");
  await block.foreignIsThere();
}

async function overNfs(): Promise<void> {
  const { a, b } = block.hosts;
  await b.run("libstorage volume create docs --service folders --size 1", SLOW);
  await b.run("libstorage volume mount docs", SLOW);
  assert.match(await b.run(`grep ${MOUNTS}/docs /proc/mounts`), /nfs4 .*vers=4.2.*hard/);
  await b.run(`echo text > ${MOUNTS}/docs/data/file && sync ${MOUNTS}/docs/data/file`);
  await a.run("libstorage volume detach --force docs", SLOW);
  assert.deepEqual(ours(await block.check()), ["nfs-stale found"]);
  assert.deepEqual(ours(await block.check("--fix")), ["nfs-stale fixed"]);
  await block.isClean("docs");
  await b.run("libstorage volume mount docs", SLOW);
  assert.equal(await b.run(`cat ${MOUNTS}/docs/data/file`), "text");
  // Its server is away: what is unmounted now goes out of sight, and the warning says what that means.
  await b.run("iptables -A OUTPUT -p tcp --dport 2049 -j DROP");
  assert.deepEqual(ours(await block.check()), ["nfs-silent left"]);
  const { stderr } = await b.attempt("libstorage volume unmount docs", SLOW);
  await b.run("iptables -D OUTPUT -p tcp --dport 2049 -j DROP");
  assert.ok(stderr === "" || /unmounted lazily/.test(stderr), stderr);
  await block.isClean("docs");
  await b.run("libstorage volume rm docs", SLOW);
}

async function overTwoPaths(): Promise<void> {
  const { a, b } = block.hosts;
  await b.run("libstorage volume mount data", SLOW);
  await b.run("libstorage volume unmount data", SLOW);
  await b.run("multipathd");
  await until("multipathd runs", async () =>
    /pid/.test((await b.attempt("multipathd show daemon")).stdout),
  );
  await b.run("libstorage volume mount data", SLOW);
  assert.match(await b.run(`findmnt -n -o SOURCE ${MOUNTS}/data`), /\/dev\/mapper\//);
  assert.equal(await b.run("ls /sys/block/dm-0/slaves | wc -l"), "2");
  // Both paths are told, and the map over them, which would keep its old size by itself.
  const bytes = async (command: string): Promise<number> => Number(await b.run(command));
  const mapSize = "blockdev --getsize64 /dev/dm-0";
  const wanted = (await bytes(mapSize)) + 1024 ** 3;
  const before = await bytes(`stat -f -c %b ${MOUNTS}/data`);
  await b.run(`libstorage volume expand data --size ${wanted / 1024 ** 3}G`, SLOW);
  assert.equal(await bytes(mapSize), wanted);
  const blockSize = await bytes(`stat -f -c %S ${MOUNTS}/data`);
  const grown = ((await bytes(`stat -f -c %b ${MOUNTS}/data`)) - before) * blockSize;
  assert.ok(grown > 0.9 * 1024 ** 3, `the file system has grown by ${grown} bytes`);
  await a.run("ip addr del 10.99.0.11/24 dev eth0");
  await b.run(
    `dd if=/dev/zero of=${MOUNTS}/data/data/more bs=1M count=8 conv=fsync status=none`,
    SLOW,
  );
  await a.run("ip addr add 10.99.0.11/24 dev eth0");
  await b.run("libstorage volume unmount data", SLOW);
  await block.isClean("data");
  await b.run("multipathd shutdown");
}

describe("a host that uses volumes", { timeout: 2_400_000 }, () => {
  before(async () => {
    block = await BlockHosts.start();
    await block.hosts.b.run("libstorage volume create data --service disks --size 1", SLOW);
  });
  after(async () => block?.hosts.remove());

  it(
    "gets one over iSCSI with mutual CHAP, formats it, grows it mounted, gives it back",
    roundTrip,
  );
  it("says which password is wrong, shows none, and leaves nothing", wrongPassword);
  it("gives up a login in time, with the reason, and leaves nothing", cutPortal);
  it("names a device that goes while it is formatted", goneWhileFormatted);
  it("touches nothing that has content of another kind", strangeContent);
  it("finds a volume that was taken away, and cleans up when nobody uses it", takenAway);
  it("uses folders over NFS, and gets rid of them when they are stale or silent", overNfs);
  it("uses every path where multipathd runs, and goes on with one", overTwoPaths);
  it("has left what is not ours", async () => {
    await block.hosts.b.run("libstorage volume rm data", SLOW);
    await block.foreignIsThere();
    assert.equal(await block.server.stop(), 0);
  });
});
