/**
 * The NBD server of QMP: one address, at which the exports that were added through QMP are found by their names. It
 * outlives the server's process by a file that says what it was.
 */
import { readFile, realpath } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { isIP } from "node:net";
import * as v from "valibot";
import type { CallContext } from "@libstorage/model";
import type { Files } from "../../core/files.js";
import { Locks } from "../../core/locks.js";
import type { Logger } from "../../core/log.js";
import type { BlockExports } from "./exports.js";
import { QmpFailure } from "./failure.js";

/** Where NBD is served. */
export type NbdAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** The exports that can be reached. */
export interface NbdDirectory {
  names(): readonly string[];
  /** The Unix socket that serves an export under the same name; undefined when there is none of that name. */
  socketOf(name: string): Promise<string | undefined>;
}

export interface NbdListening {
  /** Takes no more clients, and drops those that are there. */
  close(): Promise<void>;
}

/** Serves NBD at an address. @throws {StorageError} when it cannot be used */
export type ServeNbd = (
  address: NbdAddress,
  directory: NbdDirectory,
  options: { readonly maxConnections: number; readonly log: Logger },
) => Promise<NbdListening>;

const State = v.object({
  address: v.variant("kind", [
    v.object({ kind: v.literal("unix"), path: v.string() }),
    v.object({ kind: v.literal("tcp"), host: v.string(), port: v.number() }),
  ]),
  maxConnections: v.number(),
  /** By name. */
  exports: v.record(v.string(), v.object({ service: v.string(), id: v.string() })),
});
type State = v.InferOutput<typeof State>;

export interface NbdServerOptions {
  readonly exports: BlockExports;
  readonly serve: ServeNbd;
  readonly files: Files;
  /** Holds the file with the state. */
  readonly libFolder: string;
  /** The only folder for sockets. */
  readonly socketFolder: string;
  /** Whether addresses may be used that other hosts can reach. */
  readonly isOpenAllowed: boolean;
  readonly log: Logger;
}

const NOT_RUNNING = "NBD server not running";
const LOCK = "nbd";

export class NbdServer {
  readonly #options: NbdServerOptions;
  readonly #locks = new Locks();
  #state: State | undefined;
  #listening: NbdListening | undefined;

  constructor(options: NbdServerOptions) {
    this.#options = options;
  }

  get #file(): string {
    return join(this.#options.libFolder, "qmp-nbd.json");
  }

  /** Serves again what was served when the last server ended. */
  async resume(): Promise<void> {
    const text = await readFile(this.#file, "utf8").catch(() => undefined);
    if (text === undefined) return;
    try {
      const state = v.parse(State, JSON.parse(text));
      this.#state = state;
      await this.#listen(state);
    } catch (error) {
      this.#state = undefined;
      const reason = (error as Error).message;
      this.#options.log.warn({ reason }, "QMP's NBD server could not be started again");
    }
  }

  async #listen(state: State): Promise<void> {
    const { serve, log, exports } = this.#options;
    const directory: NbdDirectory = {
      names: () => Object.keys(this.#state?.exports ?? {}),
      socketOf: async (name) => {
        const found = Object.hasOwn(this.#state?.exports ?? {}, name)
          ? this.#state?.exports[name]
          : undefined;
        if (found === undefined) return undefined;
        const { fields } = await exports.inspect(found);
        return fields["socket"];
      },
    };
    const { maxConnections } = state;
    this.#listening = await serve(state.address, directory, { maxConnections, log });
  }

  async #save(state: State | undefined): Promise<void> {
    const { files } = this.#options;
    if (state === undefined) await files.unlink(this.#file);
    else await files.write(this.#file, JSON.stringify(state));
    this.#state = state;
  }

  /** @throws {QmpFailure} */
  start(address: NbdAddress, maxConnections: number): Promise<void> {
    return this.#locks.run(LOCK, async () => {
      if (this.#state !== undefined) throw new QmpFailure("NBD server already running");
      await this.#checkAddress(address);
      const state = { address, maxConnections, exports: {} };
      await this.#listen(state);
      await this.#save(state);
    });
  }

  async #checkAddress(address: NbdAddress): Promise<void> {
    const { socketFolder, isOpenAllowed } = this.#options;
    if (address.kind === "unix") {
      const folder = await realpath(dirname(address.path)).catch(() => undefined);
      const own = await realpath(socketFolder).catch(() => undefined);
      const isPlain = join(dirname(address.path), basename(address.path)) === address.path;
      if (folder === undefined || folder !== own || !isPlain)
        throw new QmpFailure(
          `UNIX socket path '${address.path}' is not in ${socketFolder}, the folder for sockets of QMP`,
        );
      return;
    }
    const { host } = address;
    const isLoopback = host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
    if (!isLoopback && !isOpenAllowed)
      throw new QmpFailure(
        `${host} can be reached by other hosts, and this NBD server asks nobody who he is: use 127.0.0.1 or a UNIX socket, add the export through /exports, which has TLS, or set libstorage.server.qmp.insecure`,
      );
  }

  /** Drops every client, and removes every export that was added to it. @throws {QmpFailure} */
  stop(context: CallContext): Promise<void> {
    return this.#locks.run(LOCK, async () => {
      const state = this.#state;
      if (state === undefined) throw new QmpFailure(NOT_RUNNING);
      await this.#listening?.close();
      this.#listening = undefined;
      for (const one of Object.values(state.exports))
        await this.#options.exports.remove(one, "hard", context).catch((error: unknown) => {
          if (!(error instanceof QmpFailure)) throw error;
        });
      await this.#save(undefined);
    });
  }

  /** Adds an export, which is found by `name` from then on. @throws {QmpFailure} */
  add(
    name: string,
    entry: { readonly service: string; readonly id: string },
    addExport: () => Promise<unknown>,
  ): Promise<void> {
    return this.#locks.run(LOCK, async () => {
      const state = this.#state;
      if (state === undefined) throw new QmpFailure(NOT_RUNNING);
      // In QEMU's order.
      await this.#options.exports.checkID(entry.id);
      if (await this.#isTaken(state, name))
        throw new QmpFailure(`NBD server already has export named '${name}'`);
      // First, so that no crash leaves an export that `stop` does not know of.
      await this.#save({ ...state, exports: { ...state.exports, [name]: entry } });
      try {
        await addExport();
      } catch (error) {
        await this.#save(state);
        throw error;
      }
    });
  }

  /** A name whose export has gone in another way is free again. */
  async #isTaken({ exports }: State, name: string): Promise<boolean> {
    const there = Object.hasOwn(exports, name) ? exports[name] : undefined;
    if (there === undefined) return false;
    return this.#options.exports.inspect(there).then(
      () => true,
      () => false,
    );
  }

  get isRunning(): boolean {
    return this.#state !== undefined;
  }

  /** Forgets an export that is gone. */
  forget(id: string): Promise<void> {
    return this.#locks.run(LOCK, async () => {
      const state = this.#state;
      if (state === undefined) return;
      const left = Object.entries(state.exports).filter(([, one]) => one.id !== id);
      if (left.length === Object.keys(state.exports).length) return;
      await this.#save({ ...state, exports: Object.fromEntries(left) });
    });
  }

  /** Stops serving; the next server goes on. */
  async close(): Promise<void> {
    await this.#locks.idle();
    await this.#listening?.close();
    this.#listening = undefined;
  }
}
