/** A storage session (`test/src/exporters`) that runs in a machine and is driven from the test outside. */
import type { AttachmentRecord, Session } from "@libstorage/server";
import type { Holder, SessionOptions } from "../exporters/storage-session.js";
import type { Machine } from "./machine.js";
import { RemoteSession } from "./remote-session.js";

export class RemoteStorage {
  readonly #session: RemoteSession;

  private constructor(session: RemoteSession) {
    this.#session = session;
  }

  /** @throws what the log holds, when it does not come up */
  static async start(machine: Machine, options: SessionOptions): Promise<RemoteStorage> {
    const session = new RemoteSession(machine, "exporters/storage-host.js", options);
    await session.ready();
    return new RemoteStorage(session);
  }

  get log(): string {
    return this.#session.log;
  }

  async create(sizeBytes?: number): Promise<string> {
    return (await this.#session.call("create", sizeBytes)) as string;
  }
  async attach(id: string, holder: Holder, force = false): Promise<AttachmentRecord> {
    return (await this.#session.call("attach", id, holder, force)) as AttachmentRecord;
  }
  async detach(id: string, holder: Holder, force = false): Promise<void> {
    await this.#session.call("detach", id, holder, force);
  }
  async preempt(id: string, holder: Holder): Promise<string> {
    return (await this.#session.call("preempt", id, holder)) as string;
  }
  async writes(id: string): Promise<string> {
    return (await this.#session.call("writes", id)) as string;
  }
  async expand(id: string, sizeBytes: number): Promise<void> {
    await this.#session.call("expand", id, sizeBytes);
  }
  async remove(id: string): Promise<void> {
    await this.#session.call("remove", id);
  }
  async removeAll(): Promise<void> {
    await this.#session.call("removeAll");
  }
  async sessions(): Promise<readonly Session[]> {
    return (await this.#session.call("sessions")) as readonly Session[];
  }
  async warnings(): Promise<readonly string[]> {
    return (await this.#session.call("warnings")) as readonly string[];
  }

  /** As a crash. */
  async kill(): Promise<void> {
    await this.#session.kill();
  }

  async stop(): Promise<void> {
    await this.#session.call("close");
    await this.kill();
  }
}
