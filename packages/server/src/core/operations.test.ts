import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { FaultPlan } from "./faults.js";
import { CountedFaults } from "./faults.js";
import type { JournalEntry } from "./journal-entry.js";
import { Journal } from "./journal.js";
import { SILENT } from "./log.js";
import { Operations } from "./operations.js";
import type { Caller, Request, Work } from "./operations.js";
import type { LiveTask } from "./tasks.js";

const scratch = mkdtempSync(join(tmpdir(), "libstorage-operations-"));
after(() => rmSync(scratch, { recursive: true, force: true }));
let folders = 0;

function open(faults?: FaultPlan, logTimeoutMs = 0): Operations {
  folders += 1;
  const options = faults === undefined ? {} : { faults };
  const journal = Journal.open(join(scratch, String(folders)), options);
  return new Operations(journal, { log: SILENT, logTimeoutMs, ...options });
}

function caller(more: Partial<Caller> = {}): Caller {
  return { who: "me", via: "test", tx: "tx", ...more };
}

const seen: string[] = [];
beforeEach(() => {
  seen.length = 0;
});

function request(
  work: Partial<Work<string>> = {},
  more: Partial<Request<string>> = {},
): Request<string> {
  return {
    operation: "volumeCreate",
    service: "svc",
    request: { name: "x" },
    prepare: () => ({
      work: {
        subject: { volumeID: "a" },
        run: async () => {
          seen.push("run");
          return "made";
        },
        apply: (result) => seen.push(`apply ${result}`),
        takeBack: async () => void seen.push("takeBack"),
        ...work,
      },
    }),
    ...more,
  };
}

function phases(operations: Operations): string[] {
  return [...operations.journal.since(0)].map(({ phase }) => phase);
}

/** A promise and how to resolve it. */
function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open: () => open() };
}

describe("an operation", () => {
  it("is written down before and after, and visible only then", async () => {
    const operations = open();
    const result = await operations.run(
      request({ apply: () => seen.push(`apply after ${phases(operations).join(" ")}`) }),
      caller(),
    );
    assert.equal(result, "made");
    assert.deepEqual(seen, ["run", "apply after intent end"]);
    const [intent, end] = [...operations.journal.since(0)];
    assert.equal(end?.intent, intent?.seq);
    assert.equal(end?.result, "made");
    assert.equal(intent?.volumeID, "a");
  });

  it("that is refused has changed nothing and leaves no trace", async () => {
    const operations = open();
    const refusal = new StorageError("not-found", "no such volume");
    const prepare = (): never => {
      throw refusal;
    };
    await assert.rejects(operations.run(request({}, { prepare }), caller()), refusal);
    assert.deepEqual(phases(operations), []);
  });

  it("that needs no work answers without an intent", async () => {
    const operations = open();
    const settled = request({}, { prepare: () => ({ settled: "there already" }) });
    assert.equal(await operations.run(settled, caller()), "there already");
    assert.deepEqual(phases(operations), []);
  });

  it("that fails is taken back and closed", async () => {
    const operations = open();
    const run = (): Promise<never> =>
      Promise.reject(new StorageError("resource-exhausted", "full"));
    await assert.rejects(operations.run(request({ run }), caller()), {
      code: "resource-exhausted",
    });
    assert.deepEqual(seen, ["takeBack"]);
    assert.deepEqual(phases(operations), ["intent", "failed"]);
    assert.deepEqual(operations.journal.openIntents(), []);
  });

  it("tells nothing of an error that is not ours, at first and when repeated", async () => {
    const operations = open();
    const run = (): Promise<never> => Promise.reject(new Error("secret /path"));
    const key = caller({ idempotencyKey: "k" });
    for (let times = 0; times < 2; times += 1)
      await assert.rejects(operations.run(request({ run }), key), (error: unknown) => {
        assert.ok(error instanceof StorageError);
        assert.equal(error.code, "internal");
        assert.doesNotMatch(error.message, /secret/);
        return true;
      });
  });

  it("that a look refuses meanwhile does not run", async () => {
    const operations = open();
    const refusal = new StorageError("failed-precondition", "in use");
    const look = (): never => {
      seen.push(`look after ${phases(operations).join(" ")}`);
      throw refusal;
    };
    await assert.rejects(operations.run(request({ look }), caller()), refusal);
    assert.deepEqual(seen, ["look after ", "takeBack"]);
    assert.deepEqual(phases(operations), ["intent", "failed"]);
  });

  it("whose look finds nothing runs", async () => {
    const operations = open();
    const look = (): unknown => seen.push("look");
    assert.equal(await operations.run(request({ look }), caller()), "made");
    assert.deepEqual(seen, ["look", "run", "apply made"]);
  });

  it("does nothing when its intent cannot be written", async () => {
    const operations = open(new CountedFaults(1, "fail"));
    await assert.rejects(operations.run(request(), caller()), { code: "unavailable" });
    assert.deepEqual(seen, []);
  });

  it("is taken back when its end cannot be written", async () => {
    const operations = open(new CountedFaults(2, "fail"));
    await assert.rejects(operations.run(request(), caller()), { code: "unavailable" });
    assert.deepEqual(seen, ["run", "takeBack"]);
    assert.deepEqual(phases(operations), ["intent", "failed"]);
  });
});

describe("an operation that cannot be taken back", () => {
  const broken = (): Promise<never> => Promise.reject(new StorageError("internal", "broken"));

  it("comes before anything else on its object, and is refused while it cannot be cleared", async () => {
    const operations = open();
    let isMended = false;
    const takeBack = async (): Promise<void> => {
      if (!isMended) await broken();
      seen.push("cleared");
    };
    const failing = request({ run: broken, takeBack }, { lock: "svc/a" });
    await assert.rejects(operations.run(failing, caller()), { message: "broken" });
    assert.equal(operations.stuck.size, 1);
    const next = request({}, { lock: "svc/a", operation: "volumeAttach" });
    await assert.rejects(operations.run(next, caller()), {
      code: "unavailable",
      message: /an earlier volumeCreate of a failed and cannot be cleared up: broken/,
    });
    assert.deepEqual(seen, []);
    // Another object does not wait for it.
    await operations.run(request({}, { lock: "svc/b" }), caller());
    isMended = true;
    seen.length = 0;
    await operations.run(next, caller());
    assert.deepEqual(seen, ["cleared", "run", "apply made"]);
    assert.equal(operations.stuck.size, 0);
    assert.deepEqual(operations.journal.openIntents(), []);
  });

  it("is tried again, and taken back only once when just the journal was in the way", async () => {
    const faults = new CountedFaults(2, "fail", { at: 3, mode: "fail" }, { at: 4, mode: "fail" });
    const operations = open(faults);
    await assert.rejects(operations.run(request(), caller()), { code: "unavailable" });
    assert.deepEqual(seen, ["run", "takeBack"]);
    const [problem] = await operations.stuck.finishAll();
    assert.equal(problem?.code, "unavailable");
    assert.equal(operations.stuck.size, 1);
    assert.deepEqual(await operations.stuck.finishAll(), []);
    assert.deepEqual(seen, ["run", "takeBack"]);
    assert.deepEqual(phases(operations), ["intent", "failed"]);
    assert.deepEqual(operations.journal.openIntents(), []);
  });
});

describe("a request with an idempotency key", () => {
  const key = caller({ idempotencyKey: "k" });

  it("gets the first answer when it is repeated, also after a restart", async () => {
    const operations = open();
    assert.equal(await operations.run(request(), key), "made");
    assert.equal(await operations.run(request(), key), "made");
    assert.deepEqual(seen, ["run", "apply made"]);
    const again = new Operations(operations.journal, { log: SILENT });
    assert.equal(await again.run(request(), key), "made");
    assert.deepEqual(seen, ["run", "apply made"]);
  });

  it("joins the one that runs", async () => {
    const operations = open();
    const { opened, open: go } = gate();
    const run = async (): Promise<string> => {
      seen.push("run");
      await opened;
      return "made";
    };
    const tasks = new Set<number>();
    const onTask = ({ id }: LiveTask): unknown => tasks.add(id);
    const both = [1, 2].map(() => operations.run(request({ run }), { ...key, onTask }));
    go();
    assert.deepEqual(await Promise.all(both), ["made", "made"]);
    assert.deepEqual(seen, ["run", "apply made"]);
    assert.equal(tasks.size, 1);
  });

  it("is refused for another request, while the first runs and later", async () => {
    const operations = open();
    const first = operations.run(request(), key);
    const other = request({}, { request: { name: "y" } });
    await assert.rejects(operations.run(other, key), { code: "invalid-argument" });
    await first;
    await assert.rejects(operations.run(other, key), { code: "invalid-argument" });
  });

  it("is each caller's own", async () => {
    const operations = open();
    await operations.run(request(), key);
    await operations.run(request({}, { request: { name: "y" } }), { ...key, who: "other" });
    assert.deepEqual(seen, ["run", "apply made", "run", "apply made"]);
  });

  it("gets the first refusal, failure or settled answer again", async () => {
    const operations = open();
    let calls = 0;
    const count = (): void => {
      calls += 1;
    };
    const refused = request(
      {},
      {
        prepare: () => {
          count();
          throw new StorageError("not-found", "none", { resourceID: "a" });
        },
      },
    );
    const settled = request(
      {},
      {
        prepare: () => {
          count();
          return { settled: "held" };
        },
      },
    );
    const failing = request({
      run: () => {
        count();
        return Promise.reject(new StorageError("internal", "broken", { exitCode: 5 }));
      },
    });
    for (let times = 0; times < 2; times += 1) {
      await assert.rejects(operations.run(refused, caller({ idempotencyKey: "r" })), {
        code: "not-found",
        message: "none",
        data: { resourceID: "a" },
      });
      assert.equal(await operations.run(settled, caller({ idempotencyKey: "s" })), "held");
      await assert.rejects(operations.run(failing, caller({ idempotencyKey: "f" })), {
        message: "broken",
        data: { exitCode: 5 },
      });
    }
    assert.equal(calls, 3);
  });
});

describe("tasks", () => {
  const detached = (onTask: (task: LiveTask) => void): Caller =>
    caller({ isDetached: true, onTask });

  it("are queued, running and done, with progress in between", async () => {
    const operations = open();
    const states: string[] = [];
    const run: Work<string>["run"] = async ({ progress }) => {
      progress(3, 2, "steps");
      return "made";
    };
    let last: LiveTask | undefined;
    await operations.run(
      request({ run }),
      detached((task) => {
        last = task;
        states.push(task.record.state);
        task.addListener(({ state, progress }) => states.push(`${state} ${progress?.done ?? "-"}`));
      }),
    );
    assert.deepEqual(states, ["", "running -", "running 2", "success 2"]);
    assert.equal(last?.record.result, "made");
    assert.equal(operations.tasks.find(last?.id ?? -1)?.state, "success");
  });

  it("are forgotten once they were waited for, and found in the journal", async () => {
    const operations = open();
    let id = -1;
    await operations.run(request(), caller({ onTask: (task) => (id = task.id) }));
    assert.deepEqual(operations.tasks.all(), []);
    assert.equal(operations.tasks.find(id)?.state, "success");
    assert.equal(operations.tasks.find(id + 1), undefined);
  });

  it("leave the queue at once when they are cancelled, and never begin", async () => {
    const operations = open();
    const { opened, open: go } = gate();
    const first = operations.run(
      request({ run: () => opened.then(() => "made") }, { lock: "svc/a" }),
      caller(),
    );
    let queued: LiveTask | undefined;
    const second = operations.run(
      request({}, { lock: "svc/a" }),
      caller({ idempotencyKey: "k", onTask: (task) => (queued = task) }),
    );
    queued?.cancel("someone");
    await assert.rejects(second, { code: "cancelled" });
    assert.equal(queued?.record.state, "error");
    go();
    await first;
    await operations.stop();
    assert.deepEqual(seen, ["apply made"]);
    assert.deepEqual(phases(operations).toSorted(), ["end", "intent", "refused"]);
  });

  it("that are cancelled before they are queued do not begin either", async () => {
    const operations = open();
    const early = caller({ onTask: (task) => task.cancel("someone") });
    for (const lock of [{}, { lock: "svc/a" }])
      await assert.rejects(operations.run(request({}, lock), early), { code: "cancelled" });
    assert.deepEqual(seen, []);
  });

  it("are taken back when they are cancelled while they run", async () => {
    const operations = open();
    let task: LiveTask | undefined;
    const run: Work<string>["run"] = async ({ signal }) => {
      task?.cancel("someone");
      await sleep(60_000, undefined, { signal });
      return "made";
    };
    await assert.rejects(
      operations.run(request({ run }), caller({ onTask: (live) => (task = live) })),
      { code: "cancelled", message: /was cancelled by someone/ },
    );
    assert.deepEqual(seen, ["takeBack"]);
    assert.deepEqual(phases(operations), ["intent", "failed"]);
  });

  it("that are done cannot be cancelled any more", async () => {
    const operations = open(undefined, 60_000);
    let task: LiveTask | undefined;
    await operations.run(request(), caller({ onTask: (live) => (task = live) }));
    task?.cancel("someone");
    assert.equal(task?.record.state, "success");
    assert.deepEqual(seen, ["run", "apply made"]);
  });
});

describe("a stop", () => {
  it("waits for what runs, with a lock or without, and begins nothing more", async () => {
    const operations = open();
    const { opened, open: go } = gate();
    const slow = request({ run: () => opened.then(() => "made") });
    const running = [slow, { ...slow, lock: "svc/a" }].map((one) => operations.run(one, caller()));
    const stopping = operations.stop();
    await assert.rejects(operations.run(request(), caller()), { code: "unavailable" });
    assert.equal(await Promise.race([stopping, sleep(20, "waits")]), "waits");
    go();
    await stopping;
    assert.deepEqual(await Promise.all(running), ["made", "made"]);
  });
});

describe("events", () => {
  it("come in order of their numbers, after their effect, and can be read again", async () => {
    const operations = open();
    const heard: JournalEntry[] = [];
    const stop = operations.events.subscribe((entry) => heard.push(entry));
    const slow = gate();
    const first = operations.run(request({ run: () => slow.opened.then(() => "slow") }), caller());
    await operations.run(request(), caller());
    slow.open();
    await first;
    assert.deepEqual(
      heard.map(({ phase, result }) => `${phase} ${String(result)}`),
      ["end made", "end slow"],
    );
    const numbers = heard.map(({ seq }) => seq);
    assert.deepEqual(
      numbers,
      numbers.toSorted((a, b) => a - b),
    );
    assert.deepEqual([...operations.events.since(0)], heard);
    assert.deepEqual([...operations.events.since(numbers[0] ?? 0)], heard.slice(1));
    assert.equal(operations.events.lastID, operations.journal.lastSeq);
    stop();
    await operations.run(request(), caller());
    assert.equal(heard.length, 2);
  });

  it("are not held back by an entry that could not be written", async () => {
    const operations = open(new CountedFaults(1, "fail"));
    const heard: number[] = [];
    operations.events.subscribe(({ seq }) => heard.push(seq));
    await assert.rejects(operations.run(request(), caller()));
    await operations.run(request(), caller());
    assert.deepEqual(heard, [3]);
    assert.equal(operations.events.lastID, 3);
  });

  it("do not show an entry before its turn", async () => {
    const operations = open();
    const base = { operation: "x", service: "", task: 0, tx: "", who: "", via: "" };
    const one = await operations.journal.append({ ...base, phase: "end" });
    const two = await operations.journal.append({ ...base, phase: "end" });
    operations.events.publish(two);
    assert.deepEqual([...operations.events.since(0)], []);
    operations.events.publish(one);
    assert.deepEqual([...operations.events.since(0)], [one, two]);
  });
});
