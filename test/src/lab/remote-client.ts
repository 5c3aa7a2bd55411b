/** The project's client library (`guest/client-session.ts`) in a machine, driven from the test outside. */
import type { Body, CallContext, Operation, Params, Reply, TlsSettings } from "@libstorage/model";
import type { Machine } from "./machine.js";
import { RemoteSession } from "./remote-session.js";

export interface RemoteClientOptions {
  readonly host: string;
  /** Files of the machine. */
  readonly tls: TlsSettings;
  readonly responseTimeoutMs?: number;
  readonly repeatMs?: number;
}

export class RemoteClient {
  readonly #session: RemoteSession;

  constructor(machine: Machine, options: RemoteClientOptions) {
    this.#session = new RemoteSession(machine, "lab/guest/client-session.js", options);
  }

  /** @throws {RemoteError} what the client there threw */
  async call<Op extends Operation>(
    operation: Op,
    params: Params<Op>,
    body: Body<Op>,
    context: CallContext = {},
  ): Promise<Reply<Op>> {
    return (await this.#session.call(operation, params, body, context)) as Reply<Op>;
  }

  close(): void {
    this.#session.signalKill();
  }
}
