/**
 * The network between a storage host and the host that uses its volume goes in the middle of each step, and comes
 * back: the step ends or is asked for again, and either way there is one of everything and the data are right.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ATTACHED, AWAY, E2eHosts, MOUNTED, MOUNTS, SERVICE, SLOW } from "./e2e-hosts.js";
import { chain, succeeded } from "./e2e-steps.js";
import { until } from "./limit.js";
import { RemoteHost } from "./remote-host.js";

const DATA = `${MOUNTS}/data/data`;

let e2e: E2eHosts;
let host: RemoteHost;
let id = "";
let sum = "";

/** How long the network is away from a command that waits for it. */
const AWAY_MS = 20_000;

/** The network goes when the command of this host is about to run; it comes back when the call has failed, or later. */
async function cutBefore(pattern: string, call: () => Promise<unknown>): Promise<boolean> {
  const { network } = e2e.hosts;
  await host.hold(pattern, "before");
  const result = succeeded(call());
  await host.isHeld();
  await network.cut();
  await host.call("go");
  const isOver = await Promise.race([result.then(() => true), sleep(AWAY_MS, false)]);
  if (isOver) assert.equal(await result, false, "nothing comes through");
  await network.restore();
  return result;
}

/** Bytes that a process of the machine has been sent on port 7979 and has not read. */
async function unread(): Promise<number> {
  const lines = (await e2e.hosts.a.run("ss -Htn state established sport = :7979")).split("\n");
  return lines.reduce((all, line) => all + Number(line.trim().split(/\s+/)[0] ?? 0), 0);
}

/** The request has arrived, and its answer finds no way back. */
async function cutAnswer(
  call: () => Promise<unknown>,
  isDone: () => Promise<boolean>,
): Promise<void> {
  const { network } = e2e.hosts;
  const { server } = e2e;
  // So that a connection stands: what waits to be read is then the request, and no handshake.
  await host.call("inspect", id);
  server.freeze();
  const result = succeeded(call());
  await until("the request is there", async () => (await unread()) > 0);
  await network.cut();
  server.thaw();
  await until("the server has done it", isDone, SLOW.limitMs);
  assert.equal(await result, false, "its answer does not come");
  await network.restore();
}

async function attach(): Promise<void> {
  const call = () => host.call("attach", id);
  if (!(await cutBefore("--login", call))) await call();
  await e2e.counts(ATTACHED, "attached");
  await call();
  await e2e.counts(ATTACHED, "attached again");
}

async function attachAnswer(): Promise<void> {
  // Before it a host looks at the volume, and that request would be the first to arrive.
  const ask = () => host.call("ask", id);
  await cutAnswer(ask, async () =>
    Object.values(await e2e.volumes()).some(({ attachments = [] }) => attachments.length === 1),
  );
  await host.call("attach", id);
  await e2e.counts(ATTACHED, "attached");
}

async function detach(): Promise<void> {
  const call = () => host.call("detach", id);
  await cutAnswer(call, async () =>
    Object.values(await e2e.volumes()).every(({ attachments = [] }) => attachments.length === 0),
  );
  await call();
  await e2e.counts(AWAY, "detached");
}

async function mount(): Promise<void> {
  const call = () => host.call("mount", "data");
  if (!(await cutBefore("^mkfs", call))) await call();
  await e2e.counts(MOUNTED, "mounted");
  assert.equal(await e2e.hosts.b.run(`ls -A ${DATA}`), "");
}

async function write(): Promise<void> {
  const { b, network } = e2e.hosts;
  const writer = b.start(
    `head -c 32M /dev/urandom > /tmp/source && dd if=/tmp/source of=${DATA}/file bs=256K oflag=dsync status=none`,
  );
  await until(
    "it is in the middle",
    async () => (await b.attempt(`test -s ${DATA}/file`)).code === 0,
  );
  await network.cut();
  await sleep(AWAY_MS);
  // Its data would be waited for.
  const written = Number(await b.run(`stat -c %s ${DATA}/file`));
  assert.ok(written < 32 * 1024 ** 2, `${written} bytes: the writer is over before the cut`);
  await network.restore();
  assert.equal((await writer.ended).code, 0, "it waited");
  sum = await b.run("md5sum < /tmp/source");
  await sumIsRight();
  await e2e.counts(MOUNTED, "after the cut");
}

async function sumIsRight(): Promise<void> {
  const { b } = e2e.hosts;
  await b.run("echo 3 > /proc/sys/vm/drop_caches");
  assert.equal(await b.run(`md5sum < ${DATA}/file`, SLOW), sum);
}

async function snapshot(): Promise<void> {
  const { a } = e2e.hosts;
  const call = () => host.call("snapshot", id, "moment", "e2e-cut-snapshot");
  const count = async (): Promise<string> =>
    a.run("lvs --noheadings -o lv_name vg0 | grep -c lvm-", SLOW);
  await cutAnswer(call, async () => (await count()) === "2");
  const { id: snapshotID } = await call();
  assert.equal(await count(), "2", "one volume, one snapshot");
  await e2e.hosts.b.run(`echo later > ${DATA}/later && sync`);
  await host.call("removeSnapshot", snapshotID);
}

async function expand(): Promise<void> {
  const { a, b } = e2e.hosts;
  const call = () => host.call("expand", id, 2);
  await cutAnswer(call, async () =>
    /^2\.00g$/.test(
      await a.run("lvs --noheadings -o lv_size vg0 | grep -v 12.00g | tr -d ' '", SLOW),
    ),
  );
  assert.equal((await call()).size, 2);
  assert.match(await b.run(`df -h --output=size ${DATA}`), /(1\.9|2\.0)G/);
  await sumIsRight();
  // And where the device is looked at again.
  const grow = () => host.call("expand", id, 3);
  if (!(await cutBefore("resize2fs", grow))) assert.equal((await grow()).size, 3);
  assert.match(await b.run(`df -h --output=size ${DATA}`), /(2\.9|3\.0)G/);
  await e2e.counts(MOUNTED, "expanded");
}

async function unmount(): Promise<void> {
  const call = () => host.call("unmount", "data");
  if (!(await cutBefore("--logout", call))) await call();
  await e2e.counts(AWAY, "unmounted");
  await host.call("mount", "data");
  await sumIsRight();
  // In the middle of writing back what the file system has in memory.
  await e2e.hosts.b.run(`head -c 8M /dev/urandom > ${DATA}/more`);
  const more = await e2e.hosts.b.run(`md5sum < ${DATA}/more`);
  if (!(await cutBefore("^umount", call))) await call();
  await e2e.counts(AWAY, "unmounted again");
  await host.call("mount", "data");
  assert.equal(await e2e.hosts.b.run(`md5sum < ${DATA}/more`), more);
  await call();
}

describe("a network that is cut in the middle", { timeout: 1_500_000 }, () => {
  const step = chain();
  before(async () => {
    e2e = await E2eHosts.start();
    host = await RemoteHost.start(e2e.hosts.b, { service: SERVICE, responseTimeoutMs: 30_000 });
    // A first request on a slow machine may take longer than what is to be seen as an answer that does not come.
    const create = () => host.call("create", "data", 1, "e2e-cut").catch(() => undefined);
    id = (await until("the volume is made", create, SLOW.limitMs)).id;
  });
  after(async () => e2e?.hosts.remove());

  step("of a login", attach);
  step("of the answer to a detach", detach);
  step("of the answer to an attach", attachAnswer);
  step("of mkfs", mount);
  step("of writing", write);
  step("of the answer to a snapshot", snapshot);
  step("of expanding", expand);
  step("of unmounting", unmount);
  step("leaves nothing, and what is not ours as it was", async () => {
    await host.call("remove", id);
    host.close();
    await e2e.nothingLeft();
    await e2e.foreign.isUntouched();
    assert.equal(await e2e.server.stop(), 0);
  });
});
