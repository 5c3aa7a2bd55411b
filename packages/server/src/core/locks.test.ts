import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Locks } from "./locks.js";

describe("locks", () => {
  it("run the tasks of one key one at a time, in order of arrival", async () => {
    const locks = new Locks();
    const seen: string[] = [];
    const task = (name: string, ms: number) => async () => {
      seen.push(`${name} begins`);
      await sleep(ms);
      seen.push(`${name} ends`);
    };
    await Promise.all([locks.run("k", task("a", 20)), locks.run("k", task("b", 1))]);
    assert.deepEqual(seen, ["a begins", "a ends", "b begins", "b ends"]);
  });

  it("let other keys run at once", async () => {
    const locks = new Locks();
    let isReleased = false;
    let release = (): void => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    const first = locks.run("a", () => held.then(() => (isReleased = true)));
    await locks.run("b", async () => assert.equal(isReleased, false));
    release();
    await first;
  });

  it("go on after a task that failed, and give its error to its caller alone", async () => {
    const locks = new Locks();
    const failing = locks.run("k", () => Promise.reject(new Error("no")));
    const next = locks.run("k", async () => "fine");
    await assert.rejects(failing, /no/);
    assert.equal(await next, "fine");
  });

  it("tell when all that runs or waits has ended", async () => {
    const locks = new Locks();
    let ended = 0;
    for (let count = 0; count < 5; count += 1)
      void locks.run("k", async () => {
        await sleep(2);
        ended += 1;
      });
    await locks.idle();
    assert.equal(ended, 5);
  });
});
