/**
 * One qemu-storage-daemon, for one volume, in a private folder of its own. It lives on when the server stops,
 * and is found again. What it exports is told to it anew whenever it was started anew.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { FILTER, clearFilter, filterOf, makeFilter, openFilter } from "./filters.js";
import type { Filter } from "./filters.js";
import { NODE, nodesIn, topOf } from "./graph.js";
import type { BlockNode } from "./graph.js";
import { KEY } from "./nodes.js";
import { goneFrom, killIn, monitorIn, pidIn, startIn } from "./process.js";
import type { Confinement } from "./process.js";
import { Qmp, QmpError } from "./qmp.js";

/** How long a request that is on its way when its export is removed may take to end. */
const FENCE_MS = 10_000;
const SHORT_MS = 5_000;

const LOOKS = 10;
const LOOK_EVERY_MS = 50;

/** Of QEMU 5.2 and later. */
const NEEDED = ["block-export-add", "block-export-del", "nbd-server-start"];

/** What a daemon opens. */
export interface Opening {
  /** As `blockdev-add` takes them, the volume's last; its name is the daemon's affair. */
  readonly nodes: (name: string) => readonly object[];
  /** The file with the passphrase that the node needs. */
  readonly keyFile?: string | undefined;
  readonly confinement?: Confinement;
}

/** One export of the volume, as `block-export-add` takes it. */
export interface WantedExport {
  /** Unique in the daemon; `e-` and 16 digits. */
  readonly id: string;
  readonly type: string;
  readonly options: Readonly<Record<string, unknown>>;
  /** Whether its requests can be throttled, and made to fail, while it is in use. */
  readonly filter?: Filter;
  /** Whether its clients come again by themselves, and notice a pause and no more. */
  readonly isWaitedFor?: boolean;
}

export class Daemon {
  readonly folder: string;
  readonly #qmp: Qmp;
  /** Exports as they were asked for: the daemon does not tell. */
  readonly #wanted = new Map<string, WantedExport>();
  /** The size that exports were made for last. */
  fitted: number | undefined;

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
    await startIn(folder, opening.confinement ?? {}, context);
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

  get pid(): number | undefined {
    return pidIn(this.folder);
  }

  async #isPrepared(): Promise<boolean> {
    return (await this.nodes()).some(({ name }) => name === NODE) && existsSync(this.socket);
  }

  async nodes(): Promise<readonly BlockNode[]> {
    return nodesIn(await this.#qmp.execute("query-named-block-nodes", { flat: true }));
  }

  /** The node that is written: the volume's, or the last layer that was laid over it. */
  async top(): Promise<BlockNode> {
    return topOf(await this.nodes());
  }

  async #prepare({ nodes, keyFile }: Opening): Promise<void> {
    const commands = (await this.#qmp.execute("query-commands")) as { name: string }[];
    const missing = NEEDED.filter((name) => !commands.some((one) => one.name === name));
    if (missing.length > 0)
      throw new StorageError(
        "failed-precondition",
        `this qemu-storage-daemon has no ${missing.join(", ")}; install QEMU 7 or later`,
      );
    if (keyFile !== undefined) {
      // The daemon reads the file itself, so the passphrase stands nowhere else.
      const secret = { "qom-type": "secret", id: KEY, file: keyFile };
      await this.#qmp.execute("object-add", secret);
    }
    for (const node of nodes(NODE)) await this.#qmp.execute("blockdev-add", node).catch(explain);
    const addr = { type: "unix", data: { path: this.socket } };
    await this.#qmp.execute("nbd-server-start", { addr });
  }

  async exports(): Promise<readonly string[]> {
    const all = await this.#qmp.execute("query-block-exports", undefined, SHORT_MS);
    return (all as { id: string }[]).map(({ id }) => id);
  }

  /**
   * Adds an export; one that is there is fine. It gets no thread of its own: with one, a client that leaves
   * ends the daemon.
   */
  async add(asked: WantedExport): Promise<void> {
    const { id, type, options, filter } = asked;
    this.#wanted.set(id, asked);
    if ((await this.exports()).includes(id)) return;
    const { name: top } = await this.top();
    if (filter !== undefined) {
      // Of an export that went without it.
      await clearFilter(this.#qmp, id);
      await makeFilter(this.#qmp, id, top, filter);
    }
    const node = filter === undefined ? top : filterOf(id);
    const wanted = { type, id, "node-name": node, ...options };
    try {
      await this.#qmp.execute("block-export-add", wanted);
    } catch (error) {
      if (filter !== undefined) await clearFilter(this.#qmp, id);
      throw explained(error);
    }
  }

  /** Other limits for an export that has a filter. */
  async setFilter(id: string, filter: Filter): Promise<void> {
    await openFilter(this.#qmp, id, filter);
  }

  /** Dirty bitmaps of the volume. */
  async bitmaps(): Promise<readonly string[]> {
    return (await this.top()).bitmaps;
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
    const isGone = (await deleted) || !(await this.exports()).includes(id);
    if (isGone) {
      this.#wanted.delete(id);
      await clearFilter(this.#qmp, id);
    }
    return isGone;
  }

  /** Removes an NBD export that has no client. @returns whether it is gone; other types have no such word */
  async removeUnused(id: string): Promise<boolean> {
    if (!(await this.exports()).includes(id)) return true;
    try {
      await this.#qmp.execute("block-export-del", { id, mode: "safe" }, SHORT_MS);
    } catch (error) {
      if (error instanceof QmpError && /still in use/i.test(error.desc)) return false;
      throw error;
    }
    return this.removeExport(id);
  }

  /**
   * Gives the volume a new size, or tells the daemon of one that it has. NBD exports stand in the way and do not
   * change their size: they are taken away and made again, and clients that come again find the new one.
   * @throws {StorageError} `failed-precondition`, with nothing changed, while a client that would not come again is there
   */
  async resize(sizeBytes: number): Promise<void> {
    const taken: WantedExport[] = [];
    try {
      await this.#takeNbd(taken);
      const { name: top } = await this.top();
      const filters = (await this.nodes()).filter(({ name }) => name.startsWith(FILTER));
      for (const node of [top, ...filters.map(({ name }) => name)])
        await this.#qmp.execute("block_resize", { "node-name": node, size: sizeBytes });
      this.fitted = sizeBytes;
    } finally {
      for (const one of taken) await this.add(one).catch((error: unknown) => this.#giveUp(error));
    }
  }

  /** What it does not serve any more is served by the next daemon, once this one is gone. */
  async #giveUp(error: unknown): Promise<never> {
    await killIn(this.folder);
    throw error;
  }

  /** @param taken gets those that were taken away */
  async #takeNbd(taken: WantedExport[]): Promise<void> {
    const there = (await this.#qmp.execute("query-block-exports")) as {
      id: string;
      type: string;
    }[];
    const nbd = there
      .filter(({ type }) => type === "nbd")
      .map(({ id }) => ({ id, wanted: this.#wanted.get(id) }));
    // Those that may not be taken away come first: they are a reason to leave all as it is.
    const inOrder = nbd.toSorted(
      (a, b) => Number(a.wanted?.isWaitedFor ?? false) - Number(b.wanted?.isWaitedFor ?? false),
    );
    for (const { id, wanted } of inOrder) {
      if (wanted === undefined) throw unresizable("an export that is on its way out");
      const isGone =
        wanted.isWaitedFor === true ? await this.removeExport(id) : await this.#removeDeserted(id);
      if (!isGone) throw unresizable(`the NBD export ${String(wanted.options["name"])}`);
      taken.push(wanted);
    }
  }

  /** A client that has just ended is there for a moment still. */
  async #removeDeserted(id: string): Promise<boolean> {
    for (let looks = 0; looks < LOOKS; looks += 1) {
      if (await this.removeUnused(id)) return true;
      await sleep(LOOK_EVERY_MS);
    }
    return false;
  }

  /** Runs a command of QMP on the volume's node. */
  execute(command: string, args: object): Promise<unknown> {
    return this.#qmp.execute(command, args);
  }

  /** Ends it in order, or kills it, and removes its folder. */
  async stop(context: OpContext): Promise<void> {
    const { pid } = this;
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

function unresizable(what: string): StorageError {
  return new StorageError(
    "failed-precondition",
    `a client is connected to ${what}: NBD tells a client its size once, when it comes, so the client would be cut off; end it, and try again`,
  );
}

function explain(error: unknown): never {
  throw explained(error);
}

/** A lock that someone else has is not the daemon's fault; nor is what two exports want of one volume. */
export function explained(error: unknown): unknown {
  if (!(error instanceof QmpError)) return error;
  const { desc } = error;
  const lock = /Failed to get (?:shared )?"(\w+)" lock/.exec(desc)?.[1];
  if (lock !== undefined)
    return new StorageError(
      "failed-precondition",
      `the volume's image is open in another QEMU process, which refuses the "${lock}" lock; stop it and try again`,
      { lock },
      { cause: error },
    );
  if (/Permission conflict on node/.test(desc))
    return new StorageError(
      "failed-precondition",
      `the storage daemon cannot have this export beside those that the volume has: ${desc}; a file that may grow (fuse with growable) and NBD exclude each other`,
      {},
      { cause: error },
    );
  const written = /Enabled bitmap '([^']*)' incompatible with readonly export/.exec(desc)?.[1];
  if (written !== undefined)
    return new StorageError(
      "failed-precondition",
      `the dirty bitmap ${written} is still being written; export the volume writable, or stop it first: qemu-img bitmap --disable FILE ${written}`,
      {},
      { cause: error },
    );
  const bitmap = /Bitmap '([^']*)' (is not found|is inconsistent and cannot be used)/.exec(desc);
  if (bitmap !== null)
    return new StorageError(
      "failed-precondition",
      `the volume's dirty bitmap ${bitmap[1]} ${bitmap[2]}; name one that it has, or remove that one`,
      { bitmap: bitmap[1] },
      { cause: error },
    );
  return error;
}
