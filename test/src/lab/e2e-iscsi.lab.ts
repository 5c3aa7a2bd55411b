/**
 * A volume's whole life over iSCSI, through the command line: a central server with mutual TLS and a thin pool on
 * host `a`, mutual CHAP, and host `b` that uses the volume. What was cut from it is used on `a` at the same time.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { E2eHosts } from "./e2e-hosts.js";
import { chain, startWriter } from "./e2e-steps.js";
import { DATA, MOUNTS, SLOW } from "./served-hosts.js";

const SECOND = `${MOUNTS}/second/data`;

let e2e: E2eHosts;
/** Of the file `file`, by the time when it was written. */
const sums = { before: "", after: "" };

async function strangersStayOut(): Promise<void> {
  const { b } = e2e.hosts;
  const { code } = await b.attempt("curl -sk --max-time 30 https://a:7979/volumes");
  // Curl's codes for a connection that was closed on it, with an error and without.
  assert.ok(code === 56 || code === 52, `curl ended with ${code}`);
  await b.run("libstorage volume create data --size 1", SLOW);
  await b.run("libstorage volume attach data", SLOW);
  await e2e.counts("attached", "attached");
  const iqn = await b.run("iscsiadm -m session | grep -v foreign | grep -o 'iqn[^ ]*'");
  // Without passwords, and with the host's alone, which does not let the target prove itself.
  await e2e.hosts.a.run(
    `modprobe iscsi_tcp && echo InitiatorName=iqn.2026-01.local.test:stranger > /etc/iscsi/initiatorname.iscsi && iscsid`,
    SLOW,
  );
  const node = `iscsiadm -m node -T ${iqn} -p 10.99.0.1`;
  const login = `${node},1 -o new && ${node} -o update -n node.session.initial_login_retry_max -v 1 && ${node} --login`;
  const stranger = await e2e.hosts.a.attempt(login, SLOW);
  assert.notEqual(stranger.code, 0, stranger.stdout);
  await e2e.hosts.a.run(`${node} -o delete; kill $(pidof iscsid)`);
}

async function formatsAndWrites(): Promise<void> {
  const { b } = e2e.hosts;
  assert.equal(await b.run("libstorage volume mount data", SLOW), DATA);
  await e2e.counts("mounted", "mounted");
  assert.match(await b.run(`grep ${MOUNTS}/data /proc/mounts`), /^\/dev\/sd\S+ .* ext4 rw/);
  await b.run(`head -c 24M /dev/urandom > ${DATA}/file && sync ${DATA}/file`, SLOW);
  sums.before = await b.run(`md5sum < ${DATA}/file`);
}

async function snapshotWhileMounted(): Promise<void> {
  const { b } = e2e.hosts;
  await b.run("libstorage volume snapshot data moment", SLOW);
  await b.run(`head -c 24M /dev/urandom > ${DATA}/file && sync ${DATA}/file`, SLOW);
  sums.after = await b.run(`md5sum < ${DATA}/file`);
  assert.notEqual(sums.after, sums.before);
}

async function expandWhileMounted(): Promise<void> {
  const { b } = e2e.hosts;
  const endWriter = await startWriter(b, `${DATA}/log`);
  await b.run("libstorage volume expand data --size 3G", SLOW);
  await endWriter();
  await e2e.hasSize("", 3);
  // More than it had room for, with data in what is new.
  await b.run(
    `fallocate -l 2400M ${DATA}/large
     dd if=/dev/urandom of=${DATA}/large bs=1M count=8 seek=2392 conv=notrunc,fsync status=none
     rm ${DATA}/large`,
    SLOW,
  );
  assert.equal(await b.run(`md5sum < ${DATA}/file`), sums.after);
}

/** On the storage host itself the device is the volume's own, and the two of one file system are side by side. */
async function fromSnapshotElsewhere(): Promise<void> {
  const { a, b } = e2e.hosts;
  await b.run("libstorage snapshot create-volume moment second", SLOW);
  const held = await a.attempt("libstorage volume mount data", SLOW);
  assert.equal(held.code, 1, "it has one writer");
  assert.match(held.stderr, /\bb\b/, "the holder is named");
  assert.equal(await a.run("libstorage volume mount second", SLOW), SECOND);
  assert.equal(await a.run(`md5sum < ${SECOND}/file`), sums.before);
  await a.run(`echo from a > ${SECOND}/hello && libstorage volume unmount second`, SLOW);
  // And now on the other host, beside the one that it was cut from.
  assert.equal(await b.run("libstorage volume mount second", SLOW), SECOND);
  assert.equal(
    await b.run(`cat ${SECOND}/hello; md5sum < ${SECOND}/file`),
    `from a\n${sums.before}`,
  );
  assert.equal(await b.run(`md5sum < ${DATA}/file`), sums.after);
  const serials = await b.run(
    `for at in ${MOUNTS}/data ${MOUNTS}/second; do lsblk -dnro SERIAL $(findmnt -no SOURCE $at); done`,
  );
  assert.match(serials, /^\S{8,}\n\S{8,}$/);
  assert.equal(new Set(serials.split("\n")).size, 2);
}

async function overRestart(): Promise<void> {
  const { a, b } = e2e.hosts;
  const before = await e2e.census();
  const endWriter = await startWriter(b, `${DATA}/tick`);
  await e2e.restartServer();
  assert.match(await a.run("libstorage health", SLOW), /^status +ok$/m);
  await endWriter();
  assert.deepEqual(await e2e.census(), before);
  assert.equal(
    await b.run(`md5sum < ${DATA}/file; md5sum < ${SECOND}/file`),
    `${sums.after}\n${sums.before}`,
  );
  const other = await a.attempt("libstorage volume attach data", SLOW);
  assert.match(other.stderr, /\bb\b/, "the new server knows the holder");
}

async function givenBack(): Promise<void> {
  const { b } = e2e.hosts;
  await b.run("libstorage volume unmount data && libstorage volume unmount second", SLOW);
  await e2e.counts("away", "unmounted");
  await b.run("libstorage volume mount data", SLOW);
  assert.equal(await b.run(`md5sum < ${DATA}/file`), sums.after);
  await b.run("libstorage volume unmount data", SLOW);
  await b.run("libstorage volume rm data second && libstorage snapshot rm moment", SLOW);
}

describe("a volume over iSCSI", { timeout: 1_200_000 }, () => {
  const step = chain();
  before(async () => {
    e2e = await E2eHosts.start();
  });
  after(async () => e2e?.hosts.remove());

  step("lets in who has a certificate and both passwords", strangersStayOut);
  step("is formatted and written", formatsAndWrites);
  step("gets a snapshot while it is written", snapshotWhileMounted);
  step("grows under its writer", expandWhileMounted);
  step("is what it was, on either host, in a volume made from the snapshot", fromSnapshotElsewhere);
  step("outlives the server, which knows its holder again", overRestart);
  step("has what was written when it comes back", givenBack);
  step("leaves nothing, and what is not ours as it was", async () => {
    await e2e.nothingLeft();
    await e2e.foreign.isUntouched();
    assert.equal(await e2e.server.stop(), 0);
  });
});
