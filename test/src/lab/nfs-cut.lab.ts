/**
 * The network between a storage host and the host that uses its volume over NFS goes in the middle of each step, and
 * comes back: programs wait, calls end or are made again, and either way there is one of everything and the data are
 * right.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { CommandHold } from "./command-hold.js";
import { chain } from "./e2e-steps.js";
import { NetworkCuts, RESPONSE_TIMEOUT_MS } from "./network-cuts.js";
import { NFS_TOOLS, NfsHosts, ROOT, SERVICE } from "./nfs-hosts.js";
import { RemoteHost } from "./remote-host.js";
import { DATA, SLOW } from "./served-hosts.js";

/** Longer than a mount tries, and its way back. */
const FOR_GOOD_MS = 600_000;

let hosts: NfsHosts;
let host: RemoteHost;
let cuts: NetworkCuts<object>;

const mount = () => host.call("mount", "data");
const unmount = () => host.call("unmount", "data");

async function mounts(): Promise<void> {
  if (!(await cuts.before("^mount ", mount))) await mount();
  await hosts.counts("mounted", "mounted");
  assert.equal(await hosts.b.run(`ls -A ${DATA}`), "");
  await unmount();
  await hosts.counts("away", "unmounted");
}

/** The client has given up, and could not tell the server. */
async function mountsAfterGivingUp(): Promise<void> {
  assert.equal(await cuts.before("^mount ", mount, FOR_GOOD_MS), false);
  await mount();
  await hosts.counts("mounted", "mounted after all");
}

/** What the program was told to be on the disk is there. */
async function writes(): Promise<void> {
  const { a, b } = hosts;
  await cuts.write();
  const sum = await b.run("md5sum < /tmp/source");
  assert.equal(await a.run(`md5sum < ${ROOT}/vol/${cuts.id}/data/file`, SLOW), sum);
}

async function unmounts(): Promise<void> {
  if (!(await cuts.before("^umount ", unmount))) await unmount();
  await hosts.counts("away", "unmounted");
  await mount();
  await cuts.sumIsRight();
  await unmount();
  await hosts.counts("away", "unmounted again");
}

/** Nobody can tell the server that the volume is given back, until the network is there again. */
async function unmountsAfterGivingUp(): Promise<void> {
  await mount();
  assert.equal(await cuts.before("^umount ", unmount, FOR_GOOD_MS), false);
  await unmount();
  await hosts.counts("away", "unmounted after all");
  await mount();
  await cuts.sumIsRight();
  await unmount();
}

describe("a network that is cut in the middle, under NFS", { timeout: 1_800_000 }, () => {
  const step = chain();
  before(async () => {
    hosts = await NfsHosts.start({ isLimited: true, isHeld: true });
    const hold = await CommandHold.install(hosts.a, NFS_TOOLS);
    host = await RemoteHost.start(hosts.b, {
      ...SERVICE,
      responseTimeoutMs: RESPONSE_TIMEOUT_MS,
    });
    cuts = await NetworkCuts.open(hosts, host, hold);
  });
  after(async () => hosts?.remove());

  step("of the answer to an attach", () => cuts.attach());
  step("of the answer to a detach", () => cuts.detach());
  step("of mounting", mounts);
  step("of mounting, until the client gives up", mountsAfterGivingUp);
  step("of writing", writes);
  step("of making a volume, and of its removal", () => cuts.create());
  step("of the answer to a snapshot, and to its removal", () => cuts.snapshot());
  step("of the answer to growing", () => cuts.expand());
  step("of making a volume from a snapshot, and of its removal", () => cuts.fromSnapshot());
  step("of unmounting", unmounts);
  step("of unmounting, until the client gives up", unmountsAfterGivingUp);
  step("leaves nothing, and foreign exports alone", async () => {
    await cuts.end();
    assert.equal(await hosts.stop(), 0);
  });
});
