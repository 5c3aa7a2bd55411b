/**
 * The server is killed after its first change of LVM in each step of a volume's life (`LIBSTORAGE_LAB_FULL=1`: at each
 * one, in as many lives), and as the kernel's target shows up or goes; then it is started again, and the step is asked
 * for again where its call failed. Either way there is one of everything and the data are right.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { CommandHold, LVM } from "./command-hold.js";
import { E2eHosts, SERVICE } from "./e2e-hosts.js";
import { chain, succeeded } from "./e2e-steps.js";
import { liveAndDie } from "./killed-life.js";
import type { Killed } from "./killed-life.js";
import { RemoteHost } from "./remote-host.js";
import type { State } from "./served-hosts.js";

/** A life takes minutes; this takes all of them. */
const isWhole = process.env["LIBSTORAGE_LAB_FULL"] === "1";

let e2e: E2eHosts;
let host: RemoteHost;
let killed: Killed;

/** The machine itself ends it, the moment that the target is there, or is gone. */
async function atTarget(): Promise<void> {
  const { a } = e2e.hosts;
  const { id } = await host.call("create", "data", 1, "e2e-kill-target");
  const kill = async (
    until: string,
    call: () => Promise<unknown>,
    expected: State,
  ): Promise<void> => {
    const pid = await e2e.server.pid;
    const watch = a.start(
      `${until} [ -n "$(ls /sys/kernel/config/target/iscsi | grep libstorage)" ]; do :; done; kill -9 ${pid}`,
    );
    const result = succeeded(call());
    await watch.ended;
    await e2e.startServer();
    if (!(await result)) await call();
    await e2e.counts(expected, until);
  };
  await kill("until", () => host.call("attach", id), "attached");
  await kill("while", () => host.call("detach", id), "away");
  await host.call("remove", id);
}

describe("a server that is killed", { timeout: 1_500_000 }, () => {
  const step = chain();
  before(async () => {
    e2e = await E2eHosts.start();
    const hold = await CommandHold.install(e2e.hosts.a, LVM);
    host = await RemoteHost.start(e2e.hosts.b, { service: SERVICE });
    killed = { storage: e2e, host, hold };
  });
  after(async () => e2e?.hosts.remove());

  step("after the first change of LVM of each step", async (test) => {
    assert.ok((await liveAndDie(killed, { at: 1, when: "after" }, test)) > 8);
  });
  if (isWhole) {
    step("before the first change of each step", async (test) => {
      assert.ok((await liveAndDie(killed, { at: 1, when: "before" }, test)) > 8);
    });
    step("after each further change", async (test) => {
      for (let at = 2; (await liveAndDie(killed, { at, when: "after" }, test)) > 0; at += 1);
    });
  }
  step("as its target shows up, and as it goes", atTarget);
  step("leaves nothing, and what is not ours as it was", async () => {
    host.close();
    await e2e.nothingLeft();
    await e2e.foreign.isUntouched();
    assert.equal(await e2e.server.stop(), 0);
  });
});
