/**
 * The server is killed after its first change of LVM in each step of a volume's life (`LIBSTORAGE_LAB_FULL=1`: at each
 * one, in as many lives), and as the kernel's target shows up or goes; then it is started again, and the step is asked for again where its call failed. Either way there is one of
 * everything and the data are right.
 */
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ATTACHED, AWAY, CONFIG, E2eHosts, MOUNTED, MOUNTS, SERVICE, SLOW } from "./e2e-hosts.js";
import type { Census } from "./e2e-hosts.js";
import { chain, succeeded } from "./e2e-steps.js";
import { LabServer } from "./lab-server.js";
import { endLvmHold, holdLvm, installLvmHold, isLvmHeld } from "./lvm-hold.js";
import { RemoteHost } from "./remote-host.js";

/** A life takes minutes; this takes all of them. */
const isWhole = process.env["LIBSTORAGE_LAB_FULL"] === "1";
const DATA = `${MOUNTS}/data/data`;

let e2e: E2eHosts;
let host: RemoteHost;

interface Death {
  /** At which change of LVM of a step, from 1. */
  readonly at: number;
  readonly when: "before" | "after";
}

async function diesAndStarts(): Promise<void> {
  await e2e.server.kill();
  e2e.server = await LabServer.start(e2e.hosts.a, CONFIG);
}

/** A removal whose answer was lost says, when it is asked again, that there is nothing. */
async function goes(call: "remove" | "removeSnapshot", id: string): Promise<void> {
  await host.call(call, id).catch((error: Error & { code?: string }) => {
    if (error.code !== "not-found") throw error;
  });
}

/** One life of a volume, in which every step has its death. */
class Life {
  readonly #death: Death;
  readonly #test: TestContext;
  readonly #key: string;
  deaths = 0;

  constructor(death: Death, test: TestContext) {
    this.#death = death;
    this.#test = test;
    this.#key = `e2e-kill-${death.at}-${death.when}`;
  }

  /** @returns what the step answers, at once or when it is asked again */
  async #step<T>(name: string, act: () => Promise<T>, expected: Census, count: number): Promise<T> {
    const { a } = e2e.hosts;
    await holdLvm(a, this.#death.at, this.#death.when);
    const call = act();
    const result = succeeded(call);
    let isOver = false;
    const over = (): void => void (isOver = true);
    result.then(over, over);
    let isHeld = false;
    while (!isOver && !isHeld) {
      isHeld = await isLvmHeld(a);
      await sleep(100);
    }
    if (isHeld) {
      this.deaths += 1;
      await diesAndStarts();
    }
    const isDone = await result;
    const changes = await endLvmHold(a);
    assert.ok(isDone || isHeld, `${name} fails although nothing was done to it`);
    const answer = await (isDone ? call : act());
    const how = isHeld ? `killed, ${isDone ? "succeeded" : "repeated"}` : "not so many changes";
    this.#test.diagnostic(`${name}: ${how}: ${changes.split("\n")[this.#death.at - 1] ?? ""}`);
    await e2e.counts(expected, name);
    assert.equal(Object.keys(await e2e.volumes()).length, count, `volumes after ${name}`);
    return answer;
  }

  async live(): Promise<void> {
    const { b } = e2e.hosts;
    const key = this.#key;
    const { id } = await this.#step("create", () => host.call("create", "data", 1, key), AWAY, 1);
    await this.#step("attach", () => host.call("attach", id), ATTACHED, 1);
    await this.#step("mount", () => host.call("mount", "data"), MOUNTED, 1);
    await b.run(`head -c 4M /dev/urandom > ${DATA}/file && sync ${DATA}/file`, SLOW);
    const sum = await b.run(`md5sum < ${DATA}/file`);
    const snapshot = () => host.call("snapshot", id, "moment", `${key}-snapshot`);
    const { id: snapshotID } = await this.#step("snapshot", snapshot, MOUNTED, 1);
    await b.run(`echo more > ${DATA}/more && sync ${DATA}/more`);
    await this.#step("expand", () => host.call("expand", id, 2), MOUNTED, 1);
    assert.match(await b.run(`df -h --output=size ${DATA}`), /(1\.9|2\.0)G/);
    const create = () => host.call("fromSnapshot", snapshotID, "second", `${key}-second`);
    const { id: second } = await this.#step("create from snapshot", create, MOUNTED, 2);
    await this.#step("unmount", () => host.call("unmount", "data"), AWAY, 2);
    await this.#step("mount the second", () => host.call("mount", "second"), MOUNTED, 2);
    assert.equal(
      await b.run(`md5sum < ${MOUNTS}/second/data/file; ls ${MOUNTS}/second/data`),
      `${sum}\nfile`,
    );
    await this.#step("unmount the second", () => host.call("unmount", "second"), AWAY, 2);
    await this.#step("attach again", () => host.call("attach", id), ATTACHED, 2);
    await this.#step("detach", () => host.call("detach", id), AWAY, 2);
    await this.#step("remove", () => goes("remove", second), AWAY, 1);
    await this.#step("remove the snapshot", () => goes("removeSnapshot", snapshotID), AWAY, 1);
    await host.call("remove", id);
    await e2e.nothingLeft();
  }
}

/** The machine itself ends it, the moment that the target is there, or is gone. */
async function atTarget(): Promise<void> {
  const { a } = e2e.hosts;
  const { id } = await host.call("create", "data", 1, "e2e-kill-target");
  const kill = async (
    until: string,
    call: () => Promise<unknown>,
    expected: Census,
  ): Promise<void> => {
    const pid = await e2e.server.pid;
    const watch = a.start(
      `${until} [ -n "$(ls /sys/kernel/config/target/iscsi | grep libstorage)" ]; do :; done; kill -9 ${pid}`,
    );
    const result = succeeded(call());
    await watch.ended;
    e2e.server = await LabServer.start(a, CONFIG);
    if (!(await result)) await call();
    await e2e.counts(expected, until);
  };
  await kill("until", () => host.call("attach", id), ATTACHED);
  await kill("while", () => host.call("detach", id), AWAY);
  await host.call("remove", id);
}

async function lives(death: Death, test: TestContext): Promise<number> {
  const life = new Life(death, test);
  await life.live();
  return life.deaths;
}

describe("a server that is killed", { timeout: 1_500_000 }, () => {
  const step = chain();
  before(async () => {
    e2e = await E2eHosts.start();
    await installLvmHold(e2e.hosts.a);
    host = await RemoteHost.start(e2e.hosts.b, { service: SERVICE });
  });
  after(async () => e2e?.hosts.remove());

  step("after the first change of LVM of each step", async (test) => {
    assert.ok((await lives({ at: 1, when: "after" }, test)) > 8);
  });
  if (isWhole) {
    step("before the first change of each step", async (test) => {
      assert.ok((await lives({ at: 1, when: "before" }, test)) > 8);
    });
    step("after each further change", async (test) => {
      for (let at = 2; (await lives({ at, when: "after" }, test)) > 0; at += 1);
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
