/** Unix sockets that lead to one export alone, each served by this process: of those who come it names nothing else. */
import { existsSync } from "node:fs";
import type { OpContext } from "../../core/driver.js";
import type { Logger } from "../../core/log.js";
import { serveNamed } from "./named-server.js";
import type { Directory, NamedListening } from "./named-server.js";

interface Target {
  /** The export. */
  readonly name: string;
  /** The socket of its daemon. */
  readonly daemon: string;
}

interface DoorSocket {
  readonly listening: NamedListening;
  /** Undefined: nobody new gets in. */
  target: Target | undefined;
}

/** By their paths. */
export class DoorSockets {
  readonly #log: Logger;
  readonly #all = new Map<string, DoorSocket>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /**
   * One that is there leads to the daemon that is told now. The path is a record's, so what is left there of an earlier server
   * or daemon goes.
   * @throws {StorageError} `unavailable` when it cannot be served
   */
  async serve(path: string, target: Target, { files }: OpContext): Promise<void> {
    const there = this.#all.get(path);
    if (there?.target !== undefined && existsSync(path)) {
      there.target = target;
      return;
    }
    await this.close(path);
    await files.unlink(path, { isSyncDeferred: true });
    const leads = (): Target | undefined => this.#all.get(path)?.target;
    const directory: Directory = {
      names: () => [leads()?.name ?? []].flat(),
      socketOf: async (name) => (name === leads()?.name ? leads()?.daemon : undefined),
    };
    const options = { maxConnections: 0, log: this.#log };
    const listening = await serveNamed({ kind: "unix", path }, directory, options);
    this.#all.set(path, { listening, target });
  }

  /** How many clients have the export through it. */
  usersOf(path: string): number {
    return this.#all.get(path)?.listening.users() ?? 0;
  }

  /** Nobody new gets in; who is in stays. */
  hide(path: string): void {
    const there = this.#all.get(path);
    if (there === undefined) return;
    there.target = undefined;
    there.listening.hide();
  }

  /** Who is in is dropped. */
  async close(path: string): Promise<void> {
    const there = this.#all.get(path);
    this.#all.delete(path);
    await there?.listening.close();
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#all.keys()].map((path) => this.close(path)));
  }
}
