/**
 * A volume's life in each of whose steps the server is killed; then it is started again, and the step is asked for
 * again where its call failed. Either way there is one of everything, the data are right, and who writes to the volume
 * sees nothing of it.
 */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { CommandHold } from "./command-hold.js";
import { goes, startWriter, succeeded } from "./e2e-steps.js";
import type { RemoteHost, When } from "./remote-host.js";
import { DATA, MOUNTS, SLOW } from "./served-hosts.js";
import type { Counts, ServedHosts, State } from "./served-hosts.js";

export interface Killed {
  readonly storage: ServedHosts<Counts>;
  readonly host: RemoteHost;
  /** On `a`. */
  readonly hold: CommandHold;
}

export interface Death {
  /** At which change by a command of each step, from 1. */
  readonly at: number;
  readonly when: When;
}

class Life {
  readonly #on: Killed;
  readonly #death: Death;
  readonly #test: TestContext;
  readonly #key: string;
  deaths = 0;

  constructor(on: Killed, death: Death, test: TestContext) {
    this.#on = on;
    this.#death = death;
    this.#test = test;
    this.#key = `kill-${death.at}-${death.when}`;
  }

  /** @returns what the step answers, at once or when it is asked again */
  async #step<T>(name: string, act: () => Promise<T>, expected: State, count: number): Promise<T> {
    const { storage, hold } = this.#on;
    await hold.next(this.#death.at, this.#death.when);
    const call = act();
    const result = succeeded(call);
    let isOver = false;
    const over = (): void => void (isOver = true);
    result.then(over, over);
    let isHeld = false;
    while (!isOver && !isHeld) {
      isHeld = await hold.isHeld();
      await sleep(100);
    }
    if (isHeld) {
      this.deaths += 1;
      await storage.restartServer();
    }
    const isDone = await result;
    const changes = await hold.end();
    assert.ok(isDone || isHeld, `${name} fails although nothing was done to it`);
    const answer = await (isDone ? call : act());
    const how = isHeld ? `killed, ${isDone ? "succeeded" : "repeated"}` : "not so many changes";
    this.#test.diagnostic(`${name}: ${how}: ${changes[this.#death.at - 1] ?? ""}`);
    await storage.counts(expected, name);
    assert.equal(Object.keys(await storage.volumes()).length, count, `volumes after ${name}`);
    return answer;
  }

  async live(): Promise<void> {
    const { storage, host } = this.#on;
    const { b } = storage.hosts;
    const key = this.#key;
    const { id } = await this.#step("create", () => host.call("create", "data", 1, key), "away", 1);
    await this.#step("attach", () => host.call("attach", id), "attached", 1);
    await this.#step("mount", () => host.call("mount", "data"), "mounted", 1);
    await b.run(`head -c 4M /dev/urandom > ${DATA}/file && sync ${DATA}/file`, SLOW);
    const sum = await b.run(`md5sum < ${DATA}/file`);
    const endWriter = await startWriter(b, `${DATA}/log`);
    const snapshot = () => host.call("snapshot", id, "moment", `${key}-snapshot`);
    const { id: snapshotID } = await this.#step("snapshot", snapshot, "mounted", 1);
    await b.run(`echo more > ${DATA}/more && sync ${DATA}/more`);
    await this.#step("expand", () => host.call("expand", id, 2), "mounted", 1);
    await storage.hasSize(id, 2);
    const create = () => host.call("fromSnapshot", snapshotID, "second", `${key}-second`);
    const { id: second } = await this.#step("create from snapshot", create, "mounted", 2);
    assert.equal(await storage.stored(), 3, "two volumes, one snapshot");
    await endWriter();
    await this.#step("unmount", () => host.call("unmount", "data"), "away", 2);
    await this.#step("mount the second", () => host.call("mount", "second"), "mounted", 2);
    assert.equal(
      await b.run(`md5sum < ${MOUNTS}/second/data/file; ls ${MOUNTS}/second/data`),
      `${sum}\nfile\nlog`,
    );
    await this.#step("unmount the second", () => host.call("unmount", "second"), "away", 2);
    await this.#step("attach again", () => host.call("attach", id), "attached", 2);
    await this.#step("detach", () => host.call("detach", id), "away", 2);
    const remove = () => goes(() => host.call("remove", second));
    await this.#step("remove", remove, "away", 1);
    const removeSnapshot = () => goes(() => host.call("removeSnapshot", snapshotID));
    await this.#step("remove the snapshot", removeSnapshot, "away", 1);
    await host.call("remove", id);
    await storage.nothingLeft();
  }
}

/** @returns in how many steps the server was killed: those that have so many changes */
export async function liveAndDie(on: Killed, death: Death, test: TestContext): Promise<number> {
  const life = new Life(on, death, test);
  await life.live();
  return life.deaths;
}
