/** A client of block volumes that is killed at one of its commands, and `libstorage host check --fix` after it. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { BlockHosts, ours, SLOW } from "./block-hosts.js";
import type { MortalPlan } from "./guest/mortal-volumes.js";

let block: BlockHosts;

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
  const { b } = block.hosts;
  if (plan.operation === "unmount") await b.run("libstorage volume mount data", SLOW);
  const json = JSON.stringify({ ...plan, volume: "data", service: "disks" });
  const { code } = await b.attempt(
    `node /project/test/dist/lab/guest/mortal-volumes.js '${json}'`,
    SLOW,
  );
  assert.equal(code, null, "it was killed");
  const found = await block.check("--fix");
  assert.ok(
    ours(found).every((one) => one.endsWith(" fixed")),
    JSON.stringify(found),
  );
  assert.ok(ours(found).length > 0);
  await block.isClean("data");
}

describe("a client that is killed", { timeout: 2_400_000 }, () => {
  before(async () => {
    block = await BlockHosts.start();
    await block.hosts.b.run("libstorage volume create data --service disks --size 1", SLOW);
  });
  after(async () => block?.hosts.remove());

  for (const plan of DEATHS)
    it(`${plan.when} "${plan.at}" of ${plan.operation} leaves what is cleaned`, () => dies(plan));
  it("has harmed neither the volume nor what is not ours", async () => {
    const { b } = block.hosts;
    await b.run("libstorage volume mount data && libstorage volume unmount data", SLOW);
    await b.run("libstorage volume rm data", SLOW);
    await block.foreignIsThere();
    assert.equal(await block.server.stop(), 0);
  });
});
