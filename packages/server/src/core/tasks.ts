/** Work that goes on while others wait for it, or come back later to ask. */
import { StorageError } from "@libstorage/model";
import type { Progress, TaskState } from "@libstorage/model";
import type { JournalEntry, StoredError } from "./journal-entry.js";
import type { Journal } from "./journal.js";

/** A task as others may see it. Times are milliseconds since 1970. */
export interface TaskRecord {
  readonly id: number;
  readonly operation: string;
  readonly service: string;
  readonly queueTime: number;
  readonly startTime?: number;
  readonly completeTime?: number;
  readonly state: TaskState;
  readonly progress?: Progress;
  /** What the operation answered, in the core's shapes. */
  readonly result?: unknown;
  readonly error?: StoredError;
}

/** A task that this process runs. */
export class LiveTask {
  #record: TaskRecord;
  readonly #cancel = new AbortController();
  readonly #listeners: ((record: TaskRecord) => void)[] = [];
  /** Whether nobody waits for its end, so that it stays to be asked about. */
  isKept = false;

  constructor(id: number, operation: string, service: string) {
    this.#record = { id, operation, service, queueTime: Date.now(), state: "" };
  }

  get id(): number {
    return this.#record.id;
  }

  get record(): TaskRecord {
    return this.#record;
  }

  get isDone(): boolean {
    return this.#record.state === "success" || this.#record.state === "error";
  }

  /** Aborted when someone cancels the task. */
  get signal(): AbortSignal {
    return this.#cancel.signal;
  }

  addListener(listener: (record: TaskRecord) => void): void {
    this.#listeners.push(listener);
  }

  cancel(who: string): void {
    this.#cancel.abort(
      new StorageError(
        "cancelled",
        `task ${this.id} (${this.#record.operation}) was cancelled by ${who}`,
        {
          task: this.id,
        },
      ),
    );
  }

  start(): void {
    this.#change({ state: "running", startTime: Date.now() });
    this.signal.throwIfAborted();
  }

  progress(done: number, total: number, unit: string): void {
    this.#change({ progress: { done: Math.min(done, total), total, unit } });
  }

  succeed(result: unknown): void {
    this.#change({ state: "success", completeTime: Date.now(), result });
  }

  fail(error: StoredError): void {
    this.#change({ state: "error", completeTime: Date.now(), error });
  }

  #change(part: Partial<TaskRecord>): void {
    this.#record = { ...this.#record, ...part };
    for (const listener of this.#listeners) listener(this.#record);
  }
}

/** Finished tasks that nobody waited for are kept in memory up to this many; the journal knows the rest. */
const MAX_KEPT = 1000;

export class Tasks {
  readonly #journal: Journal;
  readonly #live = new Map<number, LiveTask>();
  /** How long a finished task that someone waited for is still listed. */
  logTimeoutMs: number;

  constructor(journal: Journal, logTimeoutMs: number) {
    this.#journal = journal;
    this.logTimeoutMs = logTimeoutMs;
  }

  create(operation: string, service: string): LiveTask {
    const task = new LiveTask(this.#journal.nextTask(), operation, service);
    this.#live.set(task.id, task);
    return task;
  }

  /** To be called once a task is done. */
  finished(task: LiveTask): void {
    if (task.isKept) this.#boundKept();
    else if (this.logTimeoutMs <= 0) this.#live.delete(task.id);
    else setTimeout(() => this.#live.delete(task.id), this.logTimeoutMs).unref();
  }

  #boundKept(): void {
    if (this.#live.size <= MAX_KEPT) return;
    for (const [id, task] of this.#live) {
      if (task.isDone) this.#live.delete(id);
      if (this.#live.size <= MAX_KEPT) return;
    }
  }

  all(): TaskRecord[] {
    return [...this.#live.values()].map(({ record }) => record);
  }

  live(id: number): LiveTask | undefined {
    return this.#live.get(id);
  }

  /** A task of this process, or what the journal holds of an older one. */
  find(id: number): TaskRecord | undefined {
    return this.#live.get(id)?.record ?? fromEntry(this.#journal.lastOfTask(id));
  }
}

/** The task as its last journal entry tells it. */
export function fromEntry(entry: JournalEntry | undefined): TaskRecord | undefined {
  if (entry === undefined) return undefined;
  const { task: id, operation, service, time, ms = 0, phase, result, error } = entry;
  const times = { queueTime: time - ms, startTime: time - ms };
  const base = { id, operation, service, ...times };
  if (phase === "intent") return { ...base, state: "running" };
  if (phase === "end" || phase === "settled" || (phase === "recovered" && error === undefined))
    return { ...base, completeTime: time, state: "success", result };
  return { ...base, completeTime: time, state: "error", ...(error !== undefined && { error }) };
}
