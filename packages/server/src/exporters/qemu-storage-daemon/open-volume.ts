/** A volume that is open in a storage daemon, and its exports. Other volumes of the daemon are none of its business. */
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import type { Daemon, DaemonExport } from "./daemon.js";
import { ABSENT, clearFilter, ignoring, makeFilter, openFilter } from "./filters.js";
import type { Filter, Place } from "./filters.js";
import { inClosingOrder, topOf } from "./graph.js";
import type { BlockNode } from "./graph.js";
import { NodeNames } from "./node-names.js";
import { KEY } from "./nodes.js";
import { giveImage, hasOpen, killIn } from "./process.js";
import { QmpError } from "./qmp.js";
import { explained } from "./refusal.js";

/** How long a request that is on its way when its export is removed may take to end. */
const FENCE_MS = 10_000;
const SHORT_MS = 5_000;

const LOOKS = 10;
const LOOK_EVERY_MS = 50;

/** How a volume is opened. */
export interface Opening {
  /** As `blockdev-add` takes them, the volume's last; its name is the daemon's affair. */
  readonly nodes: (name: string) => readonly object[];
  /** The file with the passphrase that the node needs. */
  readonly keyFile?: string | undefined;
  /** The folder of the image, with all of its layers. */
  readonly imageFolder?: string | undefined;
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

export class OpenVolume {
  readonly daemon: Daemon;
  readonly names: NodeNames;
  /** Exports as they were asked for: the daemon does not tell. */
  readonly #wanted = new Map<string, WantedExport>();
  /** The name of the node that is written, as far as it is known. */
  #top: string | undefined;
  /** The size that exports were made for last. */
  fitted: number | undefined;

  constructor(daemon: Daemon, names: NodeNames = NodeNames.alone) {
    this.daemon = daemon;
    this.names = names;
  }

  /** All that a daemon has open, or half open. */
  static async in(daemon: Daemon): Promise<readonly OpenVolume[]> {
    const names = (await daemon.nodes()).map(({ name }) => name);
    return NodeNames.in(names).map((one) => new OpenVolume(daemon, one));
  }

  /** Where its NBD exports are served. */
  get socket(): string {
    return this.daemon.socket;
  }

  /**
   * Adds the volume's nodes; if it is exported, they are there. All nodes are looked at where that is needed, and not
   * otherwise: a daemon with hundreds of them takes its time to tell.
   * @throws what `refusal.ts` explains
   */
  async open({ nodes, keyFile, imageFolder }: Opening, context: OpContext): Promise<void> {
    if ((await this.exports()).length > 0) return;
    const { pid } = this.daemon;
    if (imageFolder !== undefined && pid !== undefined) await giveImage(pid, imageFolder, context);
    if (keyFile !== undefined) await this.#tellKey(keyFile);
    const wanted = nodes(this.names.node);
    try {
      await this.#addNodes(wanted);
    } catch (error) {
      const there = await this.nodes();
      if (there.length === 0) throw explained(error);
      // Of this opening, or of one that was cut short.
      await this.#dropNodes(there);
      await this.#addNodes(wanted).catch((again: unknown) => {
        throw explained(again);
      });
    }
    this.#top = this.names.node;
  }

  async #addNodes(nodes: readonly object[]): Promise<void> {
    for (const node of nodes) await this.execute("blockdev-add", node);
  }

  /** The daemon reads the file itself, so the passphrase stands nowhere else; and anew, since it may have changed. */
  async #tellKey(file: string): Promise<void> {
    await ignoring(ABSENT, this.execute("object-del", { id: KEY }));
    await this.execute("object-add", { "qom-type": "secret", id: KEY, file });
  }

  async nodes(): Promise<readonly BlockNode[]> {
    return (await this.daemon.nodes()).filter(({ name }) => this.names.isOwn(name));
  }

  /** The node that is written: the volume's, or the last layer that was laid over it. */
  async top(): Promise<BlockNode> {
    const top = topOf(await this.nodes(), this.names);
    this.#top = top.name;
    return top;
  }

  /** Makes a node that was added the one that is written, over the one that is now. */
  async layOver(node: string, overlay: string): Promise<void> {
    this.#top = undefined;
    await this.execute("blockdev-snapshot", { node, overlay });
  }

  async #ownExports(): Promise<readonly DaemonExport[]> {
    return (await this.daemon.exports()).filter(({ node }) => this.names.isOwn(node));
  }

  /** Their ids. */
  async exports(): Promise<readonly string[]> {
    return (await this.#ownExports()).map(({ id }) => id);
  }

  #place(id: string): Place {
    return { qmp: this.daemon.qmp, names: this.names, id };
  }

  /**
   * Adds an export; one that is there is brought to its limits, which may have changed while nobody could tell it. It
   * gets no thread of its own: with one, a client that leaves ends the daemon.
   * @throws {StorageError} `already-exists` when another volume of the daemon has an export of this name
   */
  async add(asked: WantedExport): Promise<void> {
    const { id, type, options, filter } = asked;
    const there = (await this.daemon.exports()).find((one) => one.id === id);
    // Its clients would get another volume's data.
    if (there !== undefined && !this.names.isOwn(there.node)) throw taken(asked);
    this.#wanted.set(id, asked);
    if (there !== undefined) {
      if (filter !== undefined) await this.setFilter(id, filter);
      return;
    }
    const top = this.#top ?? (await this.top()).name;
    const place = this.#place(id);
    if (filter !== undefined) {
      // Of an export that went without it.
      await clearFilter(place);
      await makeFilter(place, top, filter);
    }
    const node = filter === undefined ? top : this.names.filterOf(id);
    const wanted = { type, id, "node-name": node, ...options };
    try {
      await this.execute("block-export-add", wanted);
    } catch (error) {
      this.#wanted.delete(id);
      if (filter !== undefined) await clearFilter(place);
      throw explained(error);
    }
  }

  /** Other limits for an export that has a filter. */
  async setFilter(id: string, filter: Filter): Promise<void> {
    await openFilter(this.#place(id), filter);
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
    if (!(await this.exports()).includes(id)) {
      this.#wanted.delete(id);
      return true;
    }
    const deleted = this.daemon.qmp.awaits(
      ({ event, data }) => event === "BLOCK_EXPORT_DELETED" && data["id"] === id,
      fenceMs,
    );
    try {
      await this.daemon.qmp.execute("block-export-del", { id, mode: "hard" }, SHORT_MS);
    } catch (error) {
      const isLate =
        error instanceof QmpError && /already shutting down|not found/.test(error.desc);
      if (!isLate) throw error;
    }
    const isGone = (await deleted) || !(await this.exports()).includes(id);
    if (isGone) {
      this.#wanted.delete(id);
      await clearFilter(this.#place(id));
    }
    return isGone;
  }

  /** Removes an NBD export that has no client. @returns whether it is gone; other types have no such word */
  async removeUnused(id: string): Promise<boolean> {
    if (!(await this.exports()).includes(id)) return true;
    try {
      await this.daemon.qmp.execute("block-export-del", { id, mode: "safe" }, SHORT_MS);
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
      const filters = (await this.nodes()).filter(({ name }) => this.names.isFilter(name));
      for (const node of [top, ...filters.map(({ name }) => name)])
        await this.execute("block_resize", { "node-name": node, size: sizeBytes });
      this.fitted = sizeBytes;
    } finally {
      for (const one of taken) await this.add(one).catch((error: unknown) => this.#giveUp(error));
    }
  }

  /** What it does not serve any more is served by the next daemon, once this one is gone. */
  async #giveUp(error: unknown): Promise<never> {
    await killIn(this.daemon.folder);
    throw error;
  }

  /** @param taken gets those that were taken away */
  async #takeNbd(taken: WantedExport[]): Promise<void> {
    const nbd = (await this.#ownExports())
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

  /** Runs a command of QMP, on nodes of the volume. */
  execute(command: string, args: object): Promise<unknown> {
    return this.daemon.qmp.execute(command, args);
  }

  async #dropNodes(nodes: readonly BlockNode[]): Promise<void> {
    const names = nodes.map(({ name }) => name);
    for (const name of inClosingOrder(names, this.names))
      await ignoring(ABSENT, this.execute("blockdev-del", { "node-name": name }));
    // Before the first object there is no list of them.
    const list = this.execute("qom-list", { path: "/objects" });
    const objects = (await ignoring(ABSENT, list)) as { name: string }[] | undefined;
    for (const { name: id } of objects ?? [])
      if (this.names.isGroup(id)) await ignoring(ABSENT, this.execute("object-del", { id }));
  }

  /**
   * Closes a volume without exports: what was written is flushed, and its files and their locks are let go of.
   * @param path its image or device, where that is known
   * @returns whether that is proven; else the daemon has to be ended before anybody else may have the image
   */
  async close(path: string | undefined): Promise<boolean> {
    if ((await this.exports()).length > 0) return false;
    await this.#dropNodes(await this.nodes());
    if ((await this.nodes()).length > 0) return false;
    const { pid } = this.daemon;
    // Without a process nobody has it.
    if (path === undefined || pid === undefined || !existsSync(path)) return true;
    return !hasOpen(pid, path);
  }

  /** Closes it with all of its exports. */
  async closeWhole(fenceMs: number): Promise<void> {
    for (const id of await this.exports()) await this.removeExport(id, fenceMs);
    await this.close(undefined);
  }

  /** Whether the daemon has no other volume. */
  async isAlone(): Promise<boolean> {
    if ((await this.daemon.exports()).some(({ node }) => !this.names.isOwn(node))) return false;
    const all = await OpenVolume.in(this.daemon);
    return all.every(({ names }) => names.node === this.names.node);
  }
}

function taken({ options }: WantedExport): StorageError {
  const name = String(options["name"]);
  return new StorageError(
    "already-exists",
    `another volume of the service is exported as ${name}, and one storage daemon serves both; choose another name, or leave it out`,
    { name },
  );
}

function unresizable(what: string): StorageError {
  return new StorageError(
    "failed-precondition",
    `a client is connected to ${what}: NBD tells a client its size once, when it comes, so the client would be cut off; end it, and try again`,
  );
}
