/**
 * One target for all volumes of a service: a host has them over one session, whose LUNs come and go while others are in
 * use, and which ends with the last.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { E2eHosts, SERVICE } from "./e2e-hosts.js";
import { chain } from "./e2e-steps.js";
import { runMany } from "./many-callers.js";
import { RemoteHost } from "./remote-host.js";
import { MOUNTS, SLOW } from "./served-hosts.js";

let e2e: E2eHosts;

const many = { volumes: 16, callers: 8, limitMs: 300_000, operations: 100 };

/** Sessions and disks on `b`, without somebody else's. */
async function onB(): Promise<readonly [number, number]> {
  const { sessions, disks } = await e2e.census();
  return [sessions, disks];
}

async function lastOneEnds(): Promise<void> {
  const { b } = e2e.hosts;
  const host = await RemoteHost.start(b, { service: SERVICE });
  const names = ["one", "two", "three"];
  const ids: string[] = [];
  for (const name of names) ids.push((await host.call("create", name, 1, `shared-${name}`)).id);
  for (const name of names) await host.call("mount", name);
  assert.deepEqual(await onB(), [1, 3], "three volumes over one session");
  for (const name of names) await b.run(`echo ${name} > ${MOUNTS}/${name}/data/name && sync`);
  await host.call("unmount", "two");
  assert.deepEqual(await onB(), [1, 2], "its disk alone has gone");
  await b.run("echo 3 > /proc/sys/vm/drop_caches");
  assert.equal(await b.run(`cat ${MOUNTS}/one/data/name ${MOUNTS}/three/data/name`), "one\nthree");
  // It gets a number that this host has not seen, and its own content.
  await host.call("mount", "two");
  assert.deepEqual(await onB(), [1, 3]);
  assert.equal(await b.run(`cat ${MOUNTS}/two/data/name`), "two");
  // Who grows while the others are there.
  await host.call("expand", ids[2] ?? "", 2);
  const size = await b.run(`df -h --output=size ${MOUNTS}/three | tail -1 | tr -d ' '`, SLOW);
  assert.ok(["2.0G", "1.9G"].includes(size), size);
  for (const name of names) await host.call("unmount", name);
  await e2e.counts("away", "the last one ends the session");
  for (const id of ids) await host.call("remove", id);
  host.close();
}

describe("one target for all volumes of a service", { timeout: 1_700_000 }, () => {
  const step = chain();
  before(async () => {
    e2e = await E2eHosts.start({ exporter: "          target: service\n" });
  });
  after(async () => e2e?.hosts.remove());

  step("is one session, from which one volume goes without the others", lastOneEnds);
  step("no device shows another volume's serial number or content", (test) =>
    runMany(e2e, test, many),
  );
  step("leaves nothing, and what is not ours as it was", async () => {
    await e2e.nothingLeft();
    await e2e.foreign.isUntouched();
    assert.equal(await e2e.server.stop(), 0);
  });
});
