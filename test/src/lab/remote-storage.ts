/** A storage session (`test/src/exporters`) that runs in a machine and is driven from the test outside. */
import type { AttachmentRecord, Session } from "@libstorage/server";
import type { Holder, SessionOptions } from "../exporters/storage-session.js";
import type { LabProcess } from "./channel.js";
import type { Machine } from "./machine.js";
import { RemoteError } from "./remote-client.js";

interface Reply {
  readonly id?: number;
  readonly ready?: boolean;
  readonly value?: unknown;
  readonly ms?: number;
  readonly error?: { readonly code: string; readonly message: string };
}

interface Waiting {
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

const PROGRAM = "/project/test/dist/exporters/storage-host.js";

export class RemoteStorage {
  readonly #process: LabProcess;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;

  private constructor(process: LabProcess) {
    this.#process = process;
    process.onLine((line) => this.#receive(JSON.parse(line) as Reply));
    const fail = (error: Error): void => {
      for (const waiting of this.#waiting.values()) waiting.reject(error);
      this.#waiting.clear();
    };
    process.ended.then(
      ({ code, stderr }) => fail(new Error(`the storage ended with ${code}: ${stderr}`)),
      fail,
    );
  }

  /** @throws what the log holds, when it does not come up */
  static async start(machine: Machine, options: SessionOptions): Promise<RemoteStorage> {
    const process = machine.start(
      `exec node --enable-source-maps ${PROGRAM} '${JSON.stringify(options)}'`,
      { keepsInput: true },
    );
    try {
      // Loading the program alone takes a machine seconds, and minutes on a busy host.
      await process.says(/"ready":true/, 300_000);
    } catch (error) {
      process.signal("SIGKILL");
      throw error;
    }
    return new RemoteStorage(process);
  }

  get log(): string {
    return this.#process.stderr;
  }

  async create(sizeBytes?: number): Promise<string> {
    return (await this.#call("create", sizeBytes)) as string;
  }
  async attach(id: string, holder: Holder, force = false): Promise<AttachmentRecord> {
    return (await this.#call("attach", id, holder, force)) as AttachmentRecord;
  }
  async detach(id: string, holder: Holder, force = false): Promise<void> {
    await this.#call("detach", id, holder, force);
  }
  async preempt(id: string, holder: Holder): Promise<string> {
    return (await this.#call("preempt", id, holder)) as string;
  }
  async writes(id: string): Promise<string> {
    return (await this.#call("writes", id)) as string;
  }
  async expand(id: string, sizeBytes: number): Promise<void> {
    await this.#call("expand", id, sizeBytes);
  }
  async remove(id: string): Promise<void> {
    await this.#call("remove", id);
  }
  async removeAll(): Promise<void> {
    await this.#call("removeAll");
  }
  async sessions(): Promise<readonly Session[]> {
    return (await this.#call("sessions")) as readonly Session[];
  }
  async warnings(): Promise<readonly string[]> {
    return (await this.#call("warnings")) as readonly string[];
  }

  /** As a crash. */
  async kill(): Promise<void> {
    this.#process.signal("SIGKILL");
    await this.#process.ended;
  }

  async stop(): Promise<void> {
    await this.#call("close");
    await this.kill();
  }

  /** @throws {RemoteError} what it threw there */
  async #call(call: string, ...args: readonly unknown[]): Promise<unknown> {
    const id = this.#next++;
    const reply = new Promise<Reply>((resolve, reject) =>
      this.#waiting.set(id, { resolve, reject }),
    );
    this.#process.write(`${JSON.stringify({ id, call, args })}\n`);
    const { value, error } = await reply;
    if (error !== undefined) throw new RemoteError(error.code, error.message);
    return value;
  }

  #receive({ id = -1, ...reply }: Reply): void {
    this.#waiting.get(id)?.resolve(reply);
    this.#waiting.delete(id);
  }
}
