/**
 * One qemu-storage-daemon, for one volume, in a private folder of its own. It lives on when the server stops,
 * and is found again. What it exports is told to it anew whenever it was started anew.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { OpContext, Source } from "../../core/driver.js";
import { KEY, isEncrypted, nodeOf } from "./nodes.js";
import { goneFrom, killIn, monitorIn, pidIn, startIn } from "./process.js";
import { Qmp, QmpError } from "./qmp.js";

const NODE = "volume";

/** How long a request that is on its way when its export is removed may take to end. */
const FENCE_MS = 10_000;
const SHORT_MS = 5_000;

/** Of QEMU 5.2 and later. */
const NEEDED = ["block-export-add", "block-export-del", "nbd-server-start"];

/** What a daemon opens. */
export interface Opening {
  readonly source: Source;
  readonly isWritable: boolean;
  /** The file with the passphrase of encrypted images. */
  readonly keyFile?: string | undefined;
}

export interface NbdExport {
  /** Unique in the daemon. */
  readonly id: string;
  readonly name: string;
  readonly isWritable: boolean;
  readonly description: string;
}

export class Daemon {
  readonly folder: string;
  readonly #qmp: Qmp;

  private constructor(folder: string, qmp: Qmp) {
    this.folder = folder;
    this.#qmp = qmp;
  }

  /** Resolves when it is gone, or let go of. */
  get closed(): Promise<void> {
    return this.#qmp.closed;
  }

  /** Where it serves NBD. */
  get socket(): string {
    return join(this.folder, "nbd.sock");
  }

  /**
   * The folder's daemon, started if it does not run.
   * @throws {StorageError} `failed-precondition` when it is not installed or lacks what is needed
   */
  static async open(folder: string, opening: Opening, context: OpContext): Promise<Daemon> {
    const found = await Daemon.find(folder);
    if (found !== undefined) return found;
    await startIn(folder, context);
    const daemon = new Daemon(folder, await Qmp.connect(monitorIn(folder)));
    try {
      await daemon.#prepare(opening);
      return daemon;
    } catch (error) {
      await daemon.stop(context);
      throw error;
    }
  }

  /** The folder's daemon if it runs, ready for exports. One that does not answer is ended. */
  static async find(folder: string): Promise<Daemon | undefined> {
    if (pidIn(folder) === undefined) return undefined;
    try {
      const daemon = new Daemon(folder, await Qmp.connect(monitorIn(folder)));
      // It may have been started, and no more.
      if (await daemon.#isPrepared()) return daemon;
      daemon.#qmp.close();
    } catch {
      // It hangs, or is about to end.
    }
    await killIn(folder);
    return undefined;
  }

  async #isPrepared(): Promise<boolean> {
    const nodes = await this.#qmp.execute("query-named-block-nodes", { flat: true });
    const isThere = (nodes as { "node-name": string }[]).some((one) => one["node-name"] === NODE);
    return isThere && existsSync(this.socket);
  }

  async #prepare({ source, isWritable, keyFile }: Opening): Promise<void> {
    const commands = (await this.#qmp.execute("query-commands")) as { name: string }[];
    const missing = NEEDED.filter((name) => !commands.some((one) => one.name === name));
    if (missing.length > 0)
      throw new StorageError(
        "failed-precondition",
        `this qemu-storage-daemon has no ${missing.join(", ")}; install QEMU 7 or later`,
      );
    if (isEncrypted(source)) {
      // The daemon reads the file itself, so the passphrase stands nowhere else.
      const secret = { "qom-type": "secret", id: KEY, file: keyFile };
      await this.#qmp.execute("object-add", secret);
    }
    await this.#qmp.execute("blockdev-add", nodeOf(source, NODE, isWritable)).catch(explain);
    const addr = { type: "unix", data: { path: this.socket } };
    await this.#qmp.execute("nbd-server-start", { addr });
  }

  async exports(): Promise<readonly string[]> {
    const all = await this.#qmp.execute("query-block-exports", undefined, SHORT_MS);
    return (all as { id: string }[]).map(({ id }) => id);
  }

  /**
   * Adds an NBD export; one that is there is fine. It gets no thread of its own: with one, a client that leaves
   * ends the daemon.
   */
  async addNbd({ id, name, isWritable, description }: NbdExport): Promise<void> {
    if ((await this.exports()).includes(id)) return;
    const wanted = { type: "nbd", id, "node-name": NODE, name, writable: isWritable, description };
    await this.#qmp.execute("block-export-add", wanted).catch(explain);
  }

  /**
   * Removes an export and drops its clients. Answers when no request of theirs is on its way any more: that
   * is the event's word, not the reply's.
   * @returns whether that is proven; else the daemon has to be ended
   */
  async removeExport(id: string, fenceMs: number = FENCE_MS): Promise<boolean> {
    if (!(await this.exports()).includes(id)) return true;
    const deleted = this.#qmp.awaits(
      ({ event, data }) => event === "BLOCK_EXPORT_DELETED" && data["id"] === id,
      fenceMs,
    );
    try {
      await this.#qmp.execute("block-export-del", { id, mode: "hard" }, SHORT_MS);
    } catch (error) {
      const isLate =
        error instanceof QmpError && /already shutting down|not found/.test(error.desc);
      if (!isLate) throw error;
    }
    return (await deleted) || !(await this.exports()).includes(id);
  }

  /** Ends it in order, or kills it, and removes its folder. */
  async stop(context: OpContext): Promise<void> {
    const pid = pidIn(this.folder);
    await this.#qmp.execute("quit", undefined, SHORT_MS).catch(() => {});
    this.#qmp.close();
    if (pid !== undefined) await goneFrom(this.folder, pid).catch(() => killIn(this.folder));
    await context.files.removeTree(this.folder);
  }

  /** Lets go of it; it goes on. */
  release(): void {
    this.#qmp.close();
  }
}

/** A lock that someone else has is not the daemon's fault. */
function explain(error: unknown): never {
  const lock =
    error instanceof QmpError ? /Failed to get (?:shared )?"(\w+)" lock/.exec(error.desc) : null;
  if (lock === null) throw error;
  throw new StorageError(
    "failed-precondition",
    `the volume's image is open in another QEMU process, which refuses the "${lock[1]}" lock; stop it and try again`,
    {},
    { cause: error },
  );
}
