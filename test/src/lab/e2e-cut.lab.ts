/**
 * The network between a storage host and the host that uses its volume over iSCSI goes in the middle of each step, and
 * comes back: the step ends or is asked for again, and either way there is one of everything and the data are right.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { CommandHold, LVM } from "./command-hold.js";
import { E2eHosts, SERVICE } from "./e2e-hosts.js";
import { chain } from "./e2e-steps.js";
import { NetworkCuts, RESPONSE_TIMEOUT_MS } from "./network-cuts.js";
import { RemoteHost } from "./remote-host.js";
import { DATA } from "./served-hosts.js";

let e2e: E2eHosts;
let host: RemoteHost;
let cuts: NetworkCuts<object>;

async function attach(): Promise<void> {
  const call = () => host.call("attach", cuts.id);
  if (!(await cuts.before("--login", call))) await call();
  await e2e.counts("attached", "attached");
  await call();
  await e2e.counts("attached", "attached again");
}

async function mount(): Promise<void> {
  const call = () => host.call("mount", "data");
  if (!(await cuts.before("^mkfs", call))) await call();
  await e2e.counts("mounted", "mounted");
  assert.equal(await e2e.hosts.b.run(`ls -A ${DATA}`), "");
}

async function expand(): Promise<void> {
  await cuts.expand();
  // And where the device is looked at again.
  const grow = () => host.call("expand", cuts.id, 3);
  if (!(await cuts.before("resize2fs", grow))) assert.equal((await grow()).size, 3);
  await e2e.hasSize(cuts.id, 3);
  await e2e.counts("mounted", "expanded");
}

async function unmount(): Promise<void> {
  const call = () => host.call("unmount", "data");
  if (!(await cuts.before("--logout", call))) await call();
  await e2e.counts("away", "unmounted");
  await host.call("mount", "data");
  await cuts.sumIsRight();
  // In the middle of writing back what the file system has in memory.
  await e2e.hosts.b.run(`head -c 8M /dev/urandom > ${DATA}/more`);
  const more = await e2e.hosts.b.run(`md5sum < ${DATA}/more`);
  if (!(await cuts.before("^umount", call))) await call();
  await e2e.counts("away", "unmounted again");
  await host.call("mount", "data");
  assert.equal(await e2e.hosts.b.run(`md5sum < ${DATA}/more`), more);
  await call();
}

describe("a network that is cut in the middle", { timeout: 1_800_000 }, () => {
  const step = chain();
  before(async () => {
    e2e = await E2eHosts.start();
    const hold = await CommandHold.install(e2e.hosts.a, LVM);
    const options = { service: SERVICE, responseTimeoutMs: RESPONSE_TIMEOUT_MS };
    host = await RemoteHost.start(e2e.hosts.b, options);
    cuts = await NetworkCuts.open(e2e, host, hold);
  });
  after(async () => e2e?.hosts.remove());

  step("of a login", attach);
  step("of the answer to a detach", () => cuts.detach());
  step("of the answer to an attach", () => cuts.attach());
  step("of mkfs", mount);
  step("of writing", () => cuts.write());
  step("of making a volume, and of its removal", () => cuts.create());
  step("of the answer to a snapshot, and to its removal", () => cuts.snapshot());
  step("of expanding", expand);
  step("of making a volume from a snapshot, and of its removal", () => cuts.fromSnapshot());
  step("of unmounting", unmount);
  step("leaves nothing, and what is not ours as it was", async () => {
    await cuts.end();
    await e2e.foreign.isUntouched();
    assert.equal(await e2e.server.stop(), 0);
  });
});
