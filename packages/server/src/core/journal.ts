/**
 * The append-only journal, on LMDB. Tasks, the audit trail, events, idempotent answers and recovery are
 * readings of it; nothing else records what was done. Volumes carry their own truth, so losing the
 * journal loses history, never a volume.
 */
import { setImmediate } from "node:timers/promises";
import { open } from "lmdb";
import type { Database, RootDatabase } from "lmdb";
import { StorageError } from "@libstorage/model";
import { NO_FAULTS } from "./faults.js";
import type { FaultPlan } from "./faults.js";
import { hashOf, isOutcome } from "./journal-entry.js";
import type { EntryFields, JournalEntry } from "./journal-entry.js";

/** Task ids are reserved in blocks, so that ids of tasks that leave no entry are not given twice either. */
const TASK_BLOCK = 1000;

export interface JournalOptions {
  readonly faults?: FaultPlan;
  /** Entries older than this are dropped by `prune`. Default 30 days. */
  readonly retentionMs?: number;
  /** More entries than this are dropped by `prune`, oldest first. Default 1,000,000. */
  readonly maxEntries?: number;
}

const DAY_MS = 86_400_000;
const PRUNED_AT_ONCE = 500;

export class Journal {
  readonly #env: RootDatabase<string, string>;
  readonly #entries: Database<string, number>;
  /** Sequence numbers of intents without an end. */
  readonly #open: Database<number, number>;
  /** Idempotency key to the sequence number of its outcome. */
  readonly #keys: Database<number, string>;
  /** Task id to the sequence number of its last entry. */
  readonly #tasks: Database<number, number>;
  readonly #counters: Database<number, string>;
  readonly #faults: FaultPlan;
  readonly #retentionMs: number;
  readonly #maxEntries: number;
  #seq = 0;
  #prev = "";
  #inFlight = 0;
  /** Told of a sequence number whose entry could not be written. */
  onLost: ((seq: number) => void) | undefined;
  /** Why the last entry could not be written; undefined when it was. */
  flaw: string | undefined;
  #isTailLost = false;
  #nextTask = 0;
  #taskCeiling = 0;
  #isClosed = false;

  private constructor(folder: string, options: JournalOptions) {
    // Without overlapping sync a put resolves only when it is on the disk; concurrent puts share a sync.
    this.#env = open<string, string>({
      path: folder,
      encoding: "string",
      overlappingSync: false,
      // With it, lmdb makes a promise of its own for each turn, whose rejection nobody can take.
      eventTurnBatching: false,
      maxDbs: 8,
    });
    this.#entries = this.#env.openDB({
      name: "entries",
      encoding: "string",
      keyEncoding: "uint32",
    });
    this.#open = this.#env.openDB({ name: "open", encoding: "json", keyEncoding: "uint32" });
    this.#keys = this.#env.openDB({ name: "keys", encoding: "json" });
    this.#tasks = this.#env.openDB({ name: "tasks", encoding: "json", keyEncoding: "uint32" });
    this.#counters = this.#env.openDB({ name: "counters", encoding: "json" });
    this.#faults = options.faults ?? NO_FAULTS;
    this.#retentionMs = options.retentionMs ?? 30 * DAY_MS;
    this.#maxEntries = options.maxEntries ?? 1_000_000;
    this.#readTail();
    this.#nextTask = this.#counters.get("task") ?? 0;
    this.#taskCeiling = this.#nextTask;
  }

  /** Numbers never fall, so that none is given twice to those who follow the events. */
  #readTail(): void {
    this.#prev = "";
    for (const { key, value } of this.#entries.getRange({ reverse: true, limit: 1 })) {
      this.#seq = Math.max(this.#seq, key);
      this.#prev = hashOf(value);
    }
  }

  /** Opens the journal in a folder that `journal-check` has found sound. */
  static open(folder: string, options: JournalOptions = {}): Journal {
    return new Journal(folder, options);
  }

  get lastSeq(): number {
    return this.#seq;
  }

  /** A task id that was never given before. */
  nextTask(): number {
    const id = this.#nextTask;
    this.#nextTask += 1;
    if (id >= this.#taskCeiling) {
      this.#taskCeiling = id + TASK_BLOCK;
      // A task that matters has an intent, whose sync carries this along.
      committed([this.#counters.put("task", this.#taskCeiling)]).catch(() => {
        // The next task tries again.
        this.#taskCeiling = 0;
      });
    }
    return id;
  }

  /** The highest number given to an object so far, or 0. */
  counter(name: string): number {
    return this.#counters.get(name) ?? 0;
  }

  /**
   * Appends an entry; durable when it resolves. Its counters are raised in the same transaction.
   * @throws {StorageError} `unavailable` when it could not be written, for example on a full disk
   */
  async append(fields: EntryFields): Promise<JournalEntry> {
    if (this.#isClosed)
      throw new StorageError("unavailable", "the journal is closed: the server is stopping");
    if (this.#isTailLost)
      throw new StorageError(
        "unavailable",
        "the journal could not be written a moment ago; try again",
      );
    const seq = this.#seq + 1;
    const entry: JournalEntry = { seq, time: Date.now(), prev: this.#prev, ...fields };
    // Before the number is taken: what is nested too deep to be written must leave no gap.
    const text = JSON.stringify(entry);
    this.#inFlight += 1;
    this.#seq = seq;
    this.#prev = hashOf(text);
    try {
      await this.#faults.pass(
        { door: "journal", what: `${entry.phase} ${entry.operation}` },
        undefined,
        () => this.#write(entry, text),
      );
      this.flaw = undefined;
    } catch (error) {
      // What can be read was committed, whatever became of the answer.
      if (this.#entries.get(entry.seq) !== text) throw this.#lost(entry, error);
    } finally {
      this.#inFlight -= 1;
      // The chain goes on from what is on the disk, not from entries that never got there.
      if (this.#isTailLost && this.#inFlight === 0) {
        this.#readTail();
        this.#isTailLost = false;
      }
    }
    return entry;
  }

  async #write(entry: JournalEntry, text: string): Promise<void> {
    await this.#together(() => {
      const { seq, phase, intent, task, idempotencyKey, counters = {} } = entry;
      const changes = [this.#entries.put(seq, text), this.#tasks.put(task, seq)];
      if (phase === "intent") changes.push(this.#open.put(seq, task));
      else if (intent !== undefined) changes.push(this.#open.remove(intent));
      if (idempotencyKey !== undefined && isOutcome(entry))
        changes.push(this.#keys.put(idempotencyKey, seq));
      for (const [name, value] of Object.entries(counters))
        changes.push(this.#counters.put(name, value));
      return changes;
    });
  }

  /** Several changes in one transaction. */
  async #together(change: () => Promise<unknown>[]): Promise<void> {
    const changes: Promise<unknown>[] = [];
    const batch = this.#env.batch(() => {
      changes.push(...change());
    });
    await committed([batch, ...changes]);
  }

  #lost({ seq }: JournalEntry, cause: unknown): StorageError {
    this.#isTailLost = true;
    this.onLost?.(seq);
    const why = cause instanceof Error ? cause.message : String(cause);
    this.flaw = `the journal cannot be written: ${why}; free space or check the disk`;
    return new StorageError("unavailable", this.flaw, {}, { cause });
  }

  entry(seq: number): JournalEntry | undefined {
    const text = this.#entries.get(seq);
    return text === undefined ? undefined : (JSON.parse(text) as JournalEntry);
  }

  /** Entries with a sequence number above `seq`, oldest first. */
  *since(seq: number): Generator<JournalEntry> {
    for (const { value } of this.#entries.getRange({ start: seq + 1 }))
      yield JSON.parse(value) as JournalEntry;
  }

  /** Intents that have no end, oldest first. */
  openIntents(): JournalEntry[] {
    return [...this.#open.getKeys()].flatMap((seq) => this.entry(seq) ?? []);
  }

  /** The entry that closed the first request with this key. */
  outcome(idempotencyKey: string): JournalEntry | undefined {
    const seq = this.#keys.get(idempotencyKey);
    return seq === undefined ? undefined : this.entry(seq);
  }

  /** The last entry of a task, also of one from before a restart. */
  lastOfTask(task: number): JournalEntry | undefined {
    const seq = this.#tasks.get(task);
    return seq === undefined ? undefined : this.entry(seq);
  }

  /** Drops closed entries that are too old or too many. @returns how many */
  async prune(now = Date.now()): Promise<number> {
    for (let dropped = 0; ;) {
      const surplus = this.#surplus(now);
      if (surplus.length === 0) return dropped;
      // In portions, so that others get their turn.
      await Promise.all(surplus.map((entry) => this.#drop(entry)));
      dropped += surplus.length;
    }
  }

  /** Some of the closed entries that are too old or too many, oldest first. */
  #surplus(now: number): JournalEntry[] {
    const open = new Set(this.#open.getKeys());
    const last = this.#seq - this.#maxEntries;
    const surplus: JournalEntry[] = [];
    for (const { key, value } of this.#entries.getRange({ limit: PRUNED_AT_ONCE + open.size })) {
      const entry = JSON.parse(value) as JournalEntry;
      if (entry.time >= now - this.#retentionMs && key > last) break;
      if (!open.has(key)) surplus.push(entry);
    }
    return surplus;
  }

  #drop({ seq, task, idempotencyKey }: JournalEntry): Promise<void> {
    return this.#together(() => {
      const changes = [this.#entries.remove(seq)];
      if (this.#tasks.get(task) === seq) changes.push(this.#tasks.remove(task));
      if (idempotencyKey !== undefined && this.#keys.get(idempotencyKey) === seq)
        changes.push(this.#keys.remove(idempotencyKey));
      return changes;
    });
  }

  /** @returns the number of the last entry that was written */
  async close(): Promise<number> {
    this.#isClosed = true;
    const [last = 0] = this.#entries.getKeys({ reverse: true, limit: 1 });
    await this.#env.close();
    return last;
  }
}

/**
 * Waits for changes to be on the disk. When a commit fails, lmdb rejects the promise of every change in it,
 * and a further one with the cause: none of them may go unheeded, since that would end the process.
 * @throws the cause
 */
async function committed(changes: readonly Promise<unknown>[]): Promise<void> {
  const results = await Promise.allSettled(changes);
  const failed = results.find((one) => one.status === "rejected");
  if (failed === undefined) return;
  const error = failed.reason as Error & { readonly commitError?: Promise<never> };
  // Without a cause it is the error itself after all: the cause is there at once or never.
  const late = setImmediate(error);
  const cause = error.commitError?.catch((reason: unknown) => reason) ?? late;
  throw await Promise.race([cause, late]);
}
