import assert from "node:assert/strict";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { CountedFaults } from "./faults.js";
import { readJournal } from "./journal-check.js";
import { hashOf } from "./journal-entry.js";
import type { EntryFields, JournalEntry } from "./journal-entry.js";
import { Journal } from "./journal.js";

const scratch = mkdtempSync(join(tmpdir(), "libstorage-journal-"));
after(() => rmSync(scratch, { recursive: true, force: true }));
let folders = 0;

function nextFolder(): string {
  folders += 1;
  return join(scratch, String(folders));
}

function fields(phase: EntryFields["phase"], more: Partial<EntryFields> = {}): EntryFields {
  return {
    phase,
    operation: "volumeCreate",
    service: "svc",
    task: 0,
    tx: "tx",
    who: "me",
    via: "test",
    ...more,
  };
}

function checkChain(entries: readonly JournalEntry[]): void {
  for (const [index, entry] of entries.entries()) {
    const before = entries[index - 1];
    if (before !== undefined && before.seq === entry.seq - 1)
      assert.equal(entry.prev, hashOf(JSON.stringify(before)), `entry ${entry.seq}`);
  }
}

describe("the journal", () => {
  it("holds what was appended after it is opened again, chained by hashes", async () => {
    const folder = nextFolder();
    const first = Journal.open(folder);
    await Promise.all(
      Array.from({ length: 50 }, (_, index) => first.append(fields("end", { task: index }))),
    );
    await first.close();
    const second = Journal.open(folder);
    assert.equal(second.lastSeq, 50);
    await second.append(fields("end", { task: 50 }));
    const entries = [...second.since(0)];
    assert.deepEqual(
      entries.map(({ seq }) => seq),
      Array.from({ length: 51 }, (_, index) => index + 1),
    );
    checkChain(entries);
    assert.equal(entries[0]?.prev, "");
    await second.close();
  });

  it("leaves no gap for an entry that cannot be written as JSON", async () => {
    const journal = Journal.open(nextFolder());
    const result: unknown = JSON.parse(`${"[".repeat(50_000)}${"]".repeat(50_000)}`);
    await assert.rejects(journal.append(fields("end", { result })), RangeError);
    const { seq } = await journal.append(fields("end"));
    assert.equal(seq, 1);
    assert.equal(journal.lastSeq, 1);
    await journal.close();
  });

  it("is durable once an append has resolved, without being closed", async () => {
    const folder = nextFolder();
    const journal = Journal.open(folder);
    await journal.append(fields("intent"));
    // What a crash at this moment leaves.
    const copy = nextFolder();
    cpSync(folder, copy, { recursive: true });
    assert.deepEqual(readJournal(copy), { entries: 1, last: 1, altered: [] });
    await journal.close();
  });

  it("knows the intents that have no end", async () => {
    const journal = Journal.open(nextFolder());
    const a = await journal.append(fields("intent", { volumeID: "a" }));
    const b = await journal.append(fields("intent", { volumeID: "b" }));
    assert.deepEqual(
      journal.openIntents().map(({ volumeID }) => volumeID),
      ["a", "b"],
    );
    await journal.append(fields("end", { intent: a.seq }));
    await journal.append(fields("failed", { intent: b.seq }));
    assert.deepEqual(journal.openIntents(), []);
    await journal.close();
  });

  it("answers a repeat from what closed the first request, but not from what was taken back", async () => {
    const journal = Journal.open(nextFolder());
    const error = { code: "aborted", message: "cut short", data: {} } as const;
    await journal.append(fields("intent", { idempotencyKey: "k" }));
    assert.equal(journal.outcome("k"), undefined);
    await journal.append(fields("recovered", { idempotencyKey: "k", error }));
    assert.equal(journal.outcome("k"), undefined);
    await journal.append(fields("recovered", { idempotencyKey: "again", result: null }));
    assert.equal(journal.outcome("again")?.result, null);
    await journal.append(fields("end", { idempotencyKey: "k", result: { id: "a" } }));
    assert.deepEqual(journal.outcome("k")?.result, { id: "a" });
    assert.equal(journal.outcome("other"), undefined);
    await journal.close();
  });

  it("remembers the numbers it gave, and gives no task id twice", async () => {
    const folder = nextFolder();
    const first = Journal.open(folder);
    assert.equal(first.nextTask(), 0);
    assert.equal(first.nextTask(), 1);
    await first.append(fields("intent", { task: 1, counters: { "volume:svc": 7 } }));
    assert.equal(first.counter("volume:svc"), 7);
    await first.close();
    const second = Journal.open(folder);
    assert.equal(second.counter("volume:svc"), 7);
    assert.equal(second.counter("volume:other"), 0);
    assert.ok(second.nextTask() >= 2, "a task id was given twice");
    assert.equal(second.lastOfTask(1)?.phase, "intent");
    await second.close();
  });

  it("goes on after an entry that could not be written, with another number", async () => {
    const folder = nextFolder();
    const faults = new CountedFaults(2, "fail");
    const journal = Journal.open(folder, { faults });
    const lost: number[] = [];
    journal.onLost = (seq) => lost.push(seq);
    await journal.append(fields("end"));
    await assert.rejects(journal.append(fields("end")), { code: "unavailable" });
    assert.match(journal.flaw ?? "", /the journal cannot be written: /);
    const third = await journal.append(fields("end"));
    assert.equal(journal.flaw, undefined);
    assert.deepEqual(lost, [2]);
    assert.equal(third.seq, 3);
    assert.deepEqual(
      [...journal.since(0)].map(({ seq }) => seq),
      [1, 3],
    );
    assert.equal(third.prev, hashOf(JSON.stringify(journal.entry(1))));
    assert.equal(await journal.close(), 3);
    assert.deepEqual(readJournal(folder).altered, []);
  });

  it("counts an entry as written when it can be read, whatever became of the answer", async () => {
    const faults = new CountedFaults(1, "lost-answer");
    const journal = Journal.open(nextFolder(), { faults });
    const entry = await journal.append(fields("intent"));
    assert.deepEqual(journal.openIntents(), [entry]);
    await journal.close();
  });

  it("keeps its chain when several are lost at once", async () => {
    const folder = nextFolder();
    const faults = new CountedFaults(3, "fail", { at: 5, mode: "fail" });
    const journal = Journal.open(folder, { faults });
    await Promise.allSettled(Array.from({ length: 8 }, () => journal.append(fields("end"))));
    await journal.append(fields("end"));
    checkChain([...journal.since(0)]);
    assert.equal([...journal.since(0)].length, 7);
    await journal.close();
    assert.deepEqual(readJournal(folder).altered, []);
  });

  it("appends nothing once it is closed", async () => {
    const journal = Journal.open(nextFolder());
    await journal.close();
    await assert.rejects(journal.append(fields("end")), { code: "unavailable" });
  });

  it("drops what is too old or too much, with its keys, but no open intent", async () => {
    const journal = Journal.open(nextFolder(), { retentionMs: 1000, maxEntries: 100 });
    const open = await journal.append(fields("intent", { task: 1 }));
    await journal.append(fields("end", { task: 2, idempotencyKey: "k" }));
    await journal.append(fields("end", { task: 3 }));
    assert.equal(await journal.prune(Date.now()), 0);
    assert.equal(await journal.prune(Date.now() + 5000), 2);
    assert.deepEqual(journal.openIntents(), [open]);
    assert.equal(journal.outcome("k"), undefined);
    assert.equal(journal.lastOfTask(2), undefined);
    assert.equal(journal.lastOfTask(1)?.seq, open.seq);
    await journal.close();
    const small = Journal.open(nextFolder(), { maxEntries: 2 });
    for (let count = 0; count < 5; count += 1) await small.append(fields("end"));
    assert.equal(await small.prune(), 3);
    assert.deepEqual(
      [...small.since(0)].map(({ seq }) => seq),
      [4, 5],
    );
    await small.close();
  });
});
