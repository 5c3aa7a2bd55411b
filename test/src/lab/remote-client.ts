/** The project's client library, running in a machine and driven from the test outside. */
import type { Body, CallContext, Operation, Params, Reply, TlsSettings } from "@libstorage/model";
import type { LabProcess } from "./channel.js";
import type { Machine } from "./machine.js";

export interface SessionRequest {
  readonly id: number;
  readonly call: Operation;
  readonly params: object;
  readonly body: unknown;
  readonly context: object;
}

export interface SessionReply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: { readonly code: string; readonly message: string };
}

export interface RemoteClientOptions {
  readonly host: string;
  /** Files of the machine. */
  readonly tls: TlsSettings;
  readonly responseTimeoutMs?: number;
  readonly repeatMs?: number;
}

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

const PROGRAM = "/project/test/dist/lab/guest/client-session.js";

export class RemoteClient {
  readonly #process: LabProcess;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;

  constructor(machine: Machine, options: RemoteClientOptions) {
    this.#process = machine.start(`exec node ${PROGRAM} '${JSON.stringify(options)}'`, {
      keepsInput: true,
    });
    this.#process.onLine((line) => this.#receive(JSON.parse(line) as SessionReply));
    const fail = (error: Error): void => {
      for (const waiting of this.#waiting.values()) waiting.reject(error);
      this.#waiting.clear();
    };
    this.#process.ended.then(
      ({ code, stderr }) => fail(new Error(`the client ended with ${code}: ${stderr}`)),
      fail,
    );
  }

  /** @throws {RemoteError} what the client there threw */
  async call<Op extends Operation>(
    operation: Op,
    params: Params<Op>,
    body: Body<Op>,
    context: CallContext = {},
  ): Promise<Reply<Op>> {
    const id = this.#next++;
    const request: SessionRequest = { id, call: operation, params, body, context };
    const reply = new Promise<unknown>((resolve, reject) =>
      this.#waiting.set(id, { resolve, reject }),
    );
    this.#process.write(`${JSON.stringify(request)}\n`);
    return (await reply) as Reply<Op>;
  }

  close(): void {
    this.#process.signal("SIGKILL");
  }

  #receive({ id, value, error }: SessionReply): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(value);
    else waiting?.reject(new RemoteError(error.code, error.message));
  }
}
