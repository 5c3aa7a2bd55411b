/**
 * The life of a write: idempotency, lock, intent, work, end, effect, event, answer. Every operation of
 * every driver goes through here, and nothing else writes to the journal.
 */
import { setImmediate } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "./driver.js";
import { Events } from "./events.js";
import { openExec } from "./exec.js";
import type { CommandRun } from "./exec.js";
import { NO_FAULTS } from "./faults.js";
import type { FaultPlan } from "./faults.js";
import { openFiles } from "./files.js";
import { hashOf } from "./journal-entry.js";
import type { EntryFields, JournalEntry, StoredError } from "./journal-entry.js";
import type { Journal } from "./journal.js";
import { Locks, lockKeyOfEntry } from "./locks.js";
import type { Logger } from "./log.js";
import { Stuck } from "./stuck.js";
import { Tasks } from "./tasks.js";
import type { LiveTask } from "./tasks.js";

/** Who asks, through what, and under which transaction. */
export interface Caller {
  readonly who: string;
  readonly via: string;
  readonly tx: string;
  readonly idempotencyKey?: string;
  /** Whether what is made must have a name that is free, even where names may repeat. */
  readonly onlyIfNew?: boolean;
  /** Told of the task at once, and again whenever it changes. */
  readonly onTask?: (task: LiveTask) => void;
  /** Whether nobody waits for the end. */
  readonly isDetached?: boolean;
}

/** What an operation is about, for the intent. */
export type Subject = Pick<
  EntryFields,
  | "volumeID"
  | "snapshotID"
  | "exportID"
  | "path"
  | "holder"
  | "sizeBytes"
  | "force"
  | "from"
  | "change"
>;

/** Work that is about to begin. Nothing has changed yet. */
export interface Work<T> {
  readonly subject: Subject;
  /** Numbers given to new objects, to be remembered with the intent. */
  readonly counters?: Readonly<Record<string, number>>;
  /** Looks and refuses as `prepare` does, and changes nothing; takes long, so it goes on while the intent is written. */
  look?(): void;
  run(context: OpContext): Promise<T>;
  /** Makes the result visible; runs after the end is on the disk. */
  apply(result: T): void;
  /**
   * Clears up after `run` failed, so that nothing is left or all is as before. When this fails too, the
   * intent stays open, and recovery tries again.
   */
  takeBack(context: OpContext): Promise<void>;
}

/** An operation once it is known what has to be done: work, or an answer that needs none. */
export type Prepared<T> = { readonly settled: T } | { readonly work: Work<T> };

/** What was asked, for comparing two requests that carry the same idempotency key. */
export interface Asked {
  readonly operation: string;
  /** Where what is found decides on the operation: the name for all that it may become. */
  readonly asked?: string;
  readonly service: string;
  readonly request: unknown;
}

export interface Request<T> extends Asked {
  /** One operation at a time per key; without a key none waits. */
  readonly lock?: string;
  /** Looks, decides and refuses. Runs under the lock and changes nothing. */
  prepare(): Promise<Prepared<T>> | Prepared<T>;
}

export interface OperationsOptions {
  readonly log: Logger;
  readonly faults?: FaultPlan;
  readonly logTimeoutMs?: number;
}

interface Running {
  readonly request: string;
  readonly done: Promise<unknown>;
  readonly task: LiveTask;
}

export class Operations {
  readonly journal: Journal;
  readonly events: Events;
  readonly tasks: Tasks;
  readonly locks = new Locks();
  readonly #log: Logger;
  readonly #faults: FaultPlan;
  readonly #running = new Map<string, Running>();
  readonly stuck = new Stuck(this.locks);
  readonly #active = new Set<Promise<unknown>>();
  #isStopping = false;

  constructor(journal: Journal, { log, faults = NO_FAULTS, logTimeoutMs = 0 }: OperationsOptions) {
    this.journal = journal;
    this.events = new Events(journal);
    this.tasks = new Tasks(journal, logTimeoutMs);
    this.#log = log;
    this.#faults = faults;
  }

  /** Runs an operation to its end, once per idempotency key. @throws {StorageError} */
  run<T>(request: Request<T>, caller: Caller): Promise<T> {
    if (this.#isStopping)
      return Promise.reject(new StorageError("unavailable", "the server is stopping"));
    const earlier = this.repeated<T>(request, caller);
    if (earlier !== undefined) return earlier;
    const key = keyOf(caller);
    const digest = key === undefined ? "" : digestOf(request);
    const task = this.tasks.create(request.operation, request.service);
    task.isKept = caller.isDetached === true;
    caller.onTask?.(task);
    const done = this.#execute(request, caller, task, key, digest).finally(() => {
      if (key !== undefined) this.#running.delete(key);
      this.tasks.finished(task);
      this.#active.delete(done);
    });
    this.#active.add(done);
    if (key !== undefined) this.#running.set(key, { request: digest, done, task });
    return done;
  }

  /** Begins nothing any more, and waits for what runs. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await Promise.allSettled(this.#active);
    await this.locks.idle();
  }

  /** Doors and progress for one piece of work. */
  context(
    log: Logger,
    signal: AbortSignal,
    commands: CommandRun[] = [],
    task?: LiveTask,
  ): OpContext {
    return {
      signal,
      log,
      exec: openExec({ log, faults: this.#faults, onRun: (run) => commands.push(run) }),
      files: openFiles(this.#faults, signal),
      progress: (done, total, unit) => task?.progress(done, total, unit),
    };
  }

  /** The answer to an earlier request that was the same and had the same idempotency key. */
  repeated<T>(asked: Asked, caller: Caller): Promise<T> | undefined {
    const key = keyOf(caller);
    if (key === undefined) return undefined;
    const { operation } = asked;
    const running = this.#running.get(key);
    const stored = running === undefined ? this.journal.outcome(key) : undefined;
    const request = running?.request ?? stored?.request;
    if (request === undefined) return undefined;
    if (request !== digestOf(asked))
      return Promise.reject(
        new StorageError(
          "invalid-argument",
          `the idempotency key ${caller.idempotencyKey} was used for another request; use a new key for a new request`,
          { operation },
        ),
      );
    if (running !== undefined) {
      caller.onTask?.(running.task);
      return running.done as Promise<T>;
    }
    if (stored?.error !== undefined) return Promise.reject(thrown(stored.error));
    return Promise.resolve(stored?.result as T);
  }

  async #execute<T>(
    request: Request<T>,
    caller: Caller,
    task: LiveTask,
    key: string | undefined,
    digest: string,
  ): Promise<T> {
    const { operation, service, lock } = request;
    const base = {
      operation,
      service,
      task: task.id,
      tx: caller.tx,
      who: caller.who,
      via: caller.via,
      ...(key !== undefined && { idempotencyKey: key, request: digest }),
    };
    const log = this.#log.child({ service, op: operation, tx: caller.tx, task: task.id });
    const body = (): Promise<T> => this.#perform(request, base, task, log);
    try {
      const result = await (lock === undefined ? body() : this.#inTurn(lock, base, task, body));
      task.succeed(result);
      return result;
    } catch (error) {
      task.fail(stored(error));
      throw error;
    }
  }

  /** Waits for the lock, or until the task is cancelled, which takes it out of the queue. */
  #inTurn<T>(
    lock: string,
    base: Omit<EntryFields, "phase">,
    task: LiveTask,
    body: () => Promise<T>,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        const error = task.signal.reason as unknown;
        this.#noteOutcome(base, { phase: "refused", error: stored(error) }).then(
          () => reject(error),
          reject,
        );
      };
      if (task.signal.aborted) {
        leave();
        return;
      }
      task.signal.addEventListener("abort", leave, { once: true });
      void this.locks.run(lock, async () => {
        if (task.signal.aborted) return;
        task.signal.removeEventListener("abort", leave);
        await body().then(resolve, reject);
      });
    });
  }

  async #perform<T>(
    request: Request<T>,
    base: Omit<EntryFields, "phase">,
    task: LiveTask,
    log: Logger,
  ): Promise<T> {
    let prepared: Prepared<T>;
    try {
      task.start();
      if (request.lock !== undefined) await this.stuck.finishFor(request.lock);
      prepared = await request.prepare();
    } catch (thrown) {
      const error = told(thrown, base, log);
      await this.#noteOutcome(base, { phase: "refused", error: stored(error) });
      throw error;
    }
    if ("settled" in prepared) {
      await this.#noteOutcome(base, { phase: "settled", result: prepared.settled });
      return prepared.settled;
    }
    return this.#work(prepared.work, base, task, log);
  }

  /** Requests without any work leave no trace, unless a repeat of them has to get the same answer. */
  async #noteOutcome(
    base: Omit<EntryFields, "phase">,
    outcome: Pick<EntryFields, "phase" | "result" | "error">,
  ): Promise<void> {
    if (base.idempotencyKey === undefined) return;
    this.events.publish(await this.journal.append({ ...base, ...outcome }));
  }

  async #work<T>(
    work: Work<T>,
    base: Omit<EntryFields, "phase">,
    task: LiveTask,
    parent: Logger,
  ): Promise<T> {
    const started = performance.now();
    const log = parent.child({ ...work.subject });
    const commands: CommandRun[] = [];
    const fields = { ...base, ...work.subject };
    const [intent, refusal] = await Promise.all([
      this.journal.append({
        ...fields,
        phase: "intent",
        ...(work.counters !== undefined && { counters: work.counters }),
      }),
      work.look && refusalOf(work),
    ]);
    this.events.publish(intent);
    const closing = (): Partial<EntryFields> => ({
      intent: intent.seq,
      ms: Math.round(performance.now() - started),
      ...(commands.length > 0 && { commands }),
    });
    let result: T;
    let end: JournalEntry;
    try {
      if (refusal !== undefined) throw refusal.why;
      result = await work.run(this.context(log, task.signal, commands, task));
      end = await this.journal.append({ ...fields, ...closing(), phase: "end", result });
    } catch (error) {
      const cause = told(task.signal.aborted ? task.signal.reason : error, base, log);
      await this.#failed(work, intent, { ...fields, ...closing() }, cause, log);
      throw cause;
    }
    work.apply(result);
    this.events.publish(end);
    log.info({ ms: closing().ms }, "done");
    return result;
  }

  /** Nothing may be left of an operation that failed; what cannot be cleared now is tried again later. */
  async #failed<T>(
    work: Work<T>,
    intent: JournalEntry,
    fields: Omit<EntryFields, "phase">,
    cause: StorageError,
    log: Logger,
  ): Promise<void> {
    log.warn({ error: stored(cause), ms: fields.ms }, "failed");
    let isTakenBack = false;
    const finish = async (): Promise<void> => {
      if (!isTakenBack) await work.takeBack(this.context(log, AbortSignal.timeout(60_000)));
      isTakenBack = true;
      const entry = await this.journal.append({ ...fields, phase: "failed", error: stored(cause) });
      this.events.publish(entry);
    };
    try {
      await finish();
    } catch (error) {
      this.stuck.add({ intent, key: lockKeyOfEntry(fields), finish });
      log.error({ error: stored(error) }, "could not be taken back; it will be tried again");
    }
  }
}

/** What a look refuses for, if it does. The journal goes first: it hands over what it writes in the next turn. */
async function refusalOf(work: Pick<Work<never>, "look">): Promise<{ why: unknown } | undefined> {
  await setImmediate();
  try {
    work.look?.();
    return undefined;
  } catch (why) {
    return { why };
  }
}

/** An error that is not ours says nothing to the caller; the log has it. */
function told(
  error: unknown,
  { operation, task }: Pick<EntryFields, "operation" | "task">,
  log: Logger,
): StorageError {
  if (error instanceof StorageError) return error;
  log.error({ error }, "internal error");
  return new StorageError(
    "internal",
    `${operation} failed for an internal reason; the server's log has it under task ${task}`,
    {},
    { cause: error },
  );
}

function keyOf({ who, idempotencyKey }: Caller): string | undefined {
  return idempotencyKey === undefined ? undefined : `${who}\n${idempotencyKey}`;
}

function digestOf({ operation, asked = operation, service, request }: Asked): string {
  return hashOf(JSON.stringify([asked, service, request]));
}

/** An error as data. What is not ours keeps its text for the log and the journal. */
export function stored(error: unknown): StoredError {
  if (error instanceof StorageError)
    return { code: error.code, message: error.message, data: error.data };
  return {
    code: "internal",
    message: error instanceof Error ? error.message : String(error),
    data: {},
  };
}

/** An error from the journal, as it was answered the first time. */
export function thrown({ code, message, data }: StoredError): StorageError {
  return new StorageError(code, message, data);
}
