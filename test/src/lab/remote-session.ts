/** A program in a machine that answers calls (`guest/answer-calls.ts`), driven from the test outside. */
import type { LabProcess } from "./channel.js";
import type { Answer, Call } from "./guest/answer-calls.js";
import type { Machine } from "./machine.js";

/** Loading a program alone takes a machine seconds, and minutes on a busy host. */
const READY_MS = 300_000;

/** A call that failed there. */
export class RemoteError extends Error {
  override readonly name = "RemoteError";
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class RemoteSession {
  readonly #process: LabProcess;
  readonly #waiting = new Map<number, Waiting>();
  readonly #onNote: (note: string) => void;
  #next = 0;

  /**
   * @param program below `test/dist`
   * @param options its argument
   * @param onNote gets what it says between its answers
   */
  constructor(
    machine: Machine,
    program: string,
    options: object,
    onNote: (note: string) => void = () => {},
  ) {
    const command = `exec node --enable-source-maps /project/test/dist/${program} '${JSON.stringify(options)}'`;
    this.#process = machine.start(command, { keepsInput: true });
    this.#onNote = onNote;
    this.#process.onLine((line) => this.#receive(JSON.parse(line) as Answer));
    const fail = (error: Error): void => {
      for (const waiting of this.#waiting.values()) waiting.reject(error);
      this.#waiting.clear();
    };
    this.#process.ended.then(
      ({ code, stderr }) => fail(new Error(`${program} ended with ${code}: ${stderr}`)),
      fail,
    );
  }

  /** What it has written to its standard error. */
  get log(): string {
    return this.#process.stderr;
  }

  /** @throws what the log holds, when it does not come up */
  async ready(): Promise<void> {
    try {
      await this.#process.says(/"ready":true/, READY_MS);
    } catch (error) {
      this.signalKill();
      throw error;
    }
  }

  /** @throws {RemoteError} what it threw there */
  call(call: string, ...args: readonly unknown[]): Promise<unknown> {
    const id = this.#next++;
    const reply = new Promise<unknown>((resolve, reject) =>
      this.#waiting.set(id, { resolve, reject }),
    );
    // Who waits for something else meanwhile hears of a failure when it comes to this.
    reply.catch(() => {});
    this.#process.write(`${JSON.stringify({ id, call, args } satisfies Call)}\n`);
    return reply;
  }

  signalKill(): void {
    this.#process.signal("SIGKILL");
  }

  /** As a crash. */
  async kill(): Promise<void> {
    this.signalKill();
    await this.#process.ended;
  }

  #receive({ id, value, error, note }: Answer): void {
    if (note !== undefined) this.#onNote(note);
    if (id === undefined) return;
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(value);
    else waiting?.reject(new RemoteError(error.code, error.message));
  }
}
