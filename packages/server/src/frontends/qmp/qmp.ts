/** What all sessions of QMP share: the exports, the NBD server and who hears of events. */
import type { Readable, Writable } from "node:stream";
import type { CallContext, StorageEvent, VolumeService } from "@libstorage/model";
import type { Files } from "../../core/files.js";
import type { Logger } from "../../core/log.js";
import { commandsOf } from "./commands.js";
import { BlockExports } from "./exports.js";
import { NbdServer } from "./nbd-server.js";
import type { ServeNbd } from "./nbd-server.js";
import { QmpSession } from "./session.js";
import type { QmpEvent, SessionParts } from "./session.js";

export interface QmpOptions {
  readonly service: VolumeService;
  /** Tells of changes; answers how to stop. */
  subscribe(listener: (event: StorageEvent) => void): () => void;
  readonly serveNbd: ServeNbd;
  readonly files: Files;
  readonly libFolder: string;
  readonly socketFolder: string;
  readonly isOpenAllowed: boolean;
  readonly serverVersion: string;
  readonly log: Logger;
}

/** The QEMU whose commands these are. */
const FOLLOWED = { major: 7, minor: 2, micro: 0 };

/** Far more than any command, and little to keep. */
const LIMITS = { bytes: 1024 * 1024, depth: 64 };

export class Qmp {
  readonly #parts: SessionParts;
  readonly #nbd: NbdServer;
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #unsubscribe: () => void;

  private constructor(options: QmpOptions) {
    const { service, log, serverVersion } = options;
    const exports = new BlockExports(service, (listener) => options.subscribe(listener));
    const version = { qemu: FOLLOWED, package: `libstorage ${serverVersion}` };
    this.#nbd = new NbdServer({ ...options, exports, serve: options.serveNbd });
    this.#unsubscribe = exports.onDeleted((id) => {
      for (const listener of this.#listeners)
        listener({ event: "BLOCK_EXPORT_DELETED", data: { id } });
      this.#nbd.forget(id).catch((error: unknown) => {
        log.warn({ reason: (error as Error).message, id }, "an export was not forgotten");
      });
    });
    this.#parts = {
      commands: commandsOf({ exports, nbd: this.#nbd, version }),
      version,
      limits: LIMITS,
      log,
      subscribe: (listener) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
    };
  }

  static async open(options: QmpOptions): Promise<Qmp> {
    const qmp = new Qmp(options);
    await qmp.#nbd.resume();
    return qmp;
  }

  /** Talks QMP until the input ends; the output is the caller's to end. */
  talk(input: Readable, output: Writable, context: CallContext): Promise<void> {
    return new QmpSession(output, { ...context, via: "qmp" }, this.#parts).run(input);
  }

  /** The exports stay; so does the word of where they are served. */
  async close(): Promise<void> {
    this.#unsubscribe();
    await this.#nbd.close();
  }
}
