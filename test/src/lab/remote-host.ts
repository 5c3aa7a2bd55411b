/** A host's use of volumes (`guest/host-session.ts`) in a machine, driven from the test outside. */
import type { CALLS } from "./guest/host-session.js";
import { until } from "./limit.js";
import type { Machine } from "./machine.js";
import { RemoteSession } from "./remote-session.js";

export interface HostSessionOptions {
  readonly service: string;
  readonly responseTimeoutMs?: number;
  readonly repeatMs?: number;
}

export type When = "before" | "after";
type Calls = typeof CALLS;

export class RemoteHost {
  readonly #session: RemoteSession;
  /** The command that waits for `go`. */
  #held: string | undefined;

  private constructor(machine: Machine, options: HostSessionOptions) {
    this.#session = new RemoteSession(machine, "lab/guest/host-session.js", options, (held) => {
      this.#held = held;
    });
  }

  static async start(machine: Machine, options: HostSessionOptions): Promise<RemoteHost> {
    const host = new RemoteHost(machine, options);
    await host.#session.ready();
    return host;
  }

  /** @throws {RemoteError} what it threw there */
  async call<Name extends keyof Calls>(
    call: Name,
    ...args: Parameters<Calls[Name]>
  ): Promise<Awaited<ReturnType<Calls[Name]>>> {
    return (await this.#session.call(call, ...args)) as Awaited<ReturnType<Calls[Name]>>;
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
    this.#session.signalKill();
  }
}
