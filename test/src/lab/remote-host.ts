/** A host's use of volumes (`guest/host-session.ts`) in a machine, driven from the test outside. */
import type { LabProcess } from "./channel.js";
import type { CALLS } from "./guest/host-session.js";
import { until } from "./limit.js";
import type { Machine } from "./machine.js";
import { RemoteError } from "./remote-client.js";

export interface HostSessionOptions {
  readonly service: string;
  readonly responseTimeoutMs?: number;
  readonly repeatMs?: number;
}

export type When = "before" | "after";
type Calls = typeof CALLS;

export interface HostRequest {
  readonly id: number;
  readonly call: keyof Calls;
  readonly args: readonly unknown[];
}

export interface HostMessage {
  readonly ready?: boolean;
  /** The command that waits for `go`. */
  readonly held?: string;
  readonly id?: number;
  readonly value?: unknown;
  readonly error?: { readonly code: string; readonly message: string };
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

const PROGRAM = "/project/test/dist/lab/guest/host-session.js";

export class RemoteHost {
  readonly #process: LabProcess;
  readonly #waiting = new Map<number, Waiting>();
  #held: string | undefined;
  #next = 0;

  private constructor(process: LabProcess) {
    this.#process = process;
    process.onLine((line) => this.#receive(JSON.parse(line) as HostMessage));
    const fail = (error: Error): void => {
      for (const waiting of this.#waiting.values()) waiting.reject(error);
      this.#waiting.clear();
    };
    process.ended.then(
      ({ code, stderr }) => fail(new Error(`the session ended with ${code}: ${stderr}`)),
      fail,
    );
  }

  static async start(machine: Machine, options: HostSessionOptions): Promise<RemoteHost> {
    const process = machine.start(
      `exec node --enable-source-maps ${PROGRAM} '${JSON.stringify(options)}'`,
      { keepsInput: true },
    );
    try {
      await process.says(/"ready":true/, 300_000);
    } catch (error) {
      process.signal("SIGKILL");
      throw error;
    }
    return new RemoteHost(process);
  }

  /** @throws {RemoteError} what it threw there */
  async call<Name extends keyof Calls>(
    call: Name,
    ...args: Parameters<Calls[Name]>
  ): Promise<Awaited<ReturnType<Calls[Name]>>> {
    const id = this.#next++;
    const reply = new Promise<unknown>((resolve, reject) =>
      this.#waiting.set(id, { resolve, reject }),
    );
    // Who waits for something else meanwhile hears of a failure when it comes to this.
    reply.catch(() => {});
    this.#process.write(`${JSON.stringify({ id, call, args } satisfies HostRequest)}\n`);
    return (await reply) as Awaited<ReturnType<Calls[Name]>>;
  }

  /** From the next command whose words fit on: it waits, before or after it has run, until `go`. */
  async hold(pattern: string, when: When): Promise<void> {
    this.#held = undefined;
    await this.call("hold", pattern, when);
  }

  async isHeld(): Promise<string> {
    return until("the command is held", async () => this.#held, 240_000);
  }

  close(): void {
    this.#process.signal("SIGKILL");
  }

  #receive({ id, value, error, held }: HostMessage): void {
    if (held !== undefined) this.#held = held;
    if (id === undefined) return;
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(value);
    else waiting?.reject(new RemoteError(error.code, error.message));
  }
}
