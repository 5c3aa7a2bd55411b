/**
 * The server is killed after the first and after the second of its commands in each step of a volume's life over NFS
 * (`LIBSTORAGE_LAB_FULL=1`: after each further one, and before the first); then
 * it is started again, and the step is asked for again where its call failed. Either way there is one of everything and
 * the data are right.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { CommandHold } from "./command-hold.js";
import { chain } from "./e2e-steps.js";
import { liveAndDie } from "./killed-life.js";
import type { Killed } from "./killed-life.js";
import { NFS_TOOLS, NfsHosts, SERVICE } from "./nfs-hosts.js";
import { RemoteHost } from "./remote-host.js";

/** A life takes minutes; this takes all of them. */
const isWhole = process.env["LIBSTORAGE_LAB_FULL"] === "1";

let hosts: NfsHosts;
let killed: Killed;

describe("a server that is killed, under NFS", { timeout: 1_800_000 }, () => {
  const step = chain();
  before(async () => {
    hosts = await NfsHosts.start({ isLimited: true, isHeld: true });
    const hold = await CommandHold.install(hosts.a, NFS_TOOLS);
    const host = await RemoteHost.start(hosts.b, SERVICE);
    killed = { storage: hosts, host, hold };
  });
  after(async () => hosts?.remove());

  step("after the first command of each step", async (test) => {
    assert.ok((await liveAndDie(killed, { at: 1, when: "after" }, test)) > 8);
  });
  step("after the second command of each step", async (test) => {
    assert.ok((await liveAndDie(killed, { at: 2, when: "after" }, test)) > 5);
  });
  if (isWhole) {
    step("before the first command of each step", async (test) => {
      assert.ok((await liveAndDie(killed, { at: 1, when: "before" }, test)) > 8);
    });
    step("after each further command", async (test) => {
      for (let at = 3; (await liveAndDie(killed, { at, when: "after" }, test)) > 0; at += 1);
    });
  }
  step("leaves nothing, and foreign exports alone", async () => {
    killed.host.close();
    await hosts.nothingLeft();
    assert.equal(await hosts.stop(), 0);
  });
});
