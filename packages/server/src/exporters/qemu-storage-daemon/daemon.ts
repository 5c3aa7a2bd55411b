/**
 * One qemu-storage-daemon, in a private folder of its own. It lives on when the server stops, and is found again. What
 * it exports is told to it anew whenever it was started anew. The volumes in it: `open-volume.ts`.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { nodesIn } from "./graph.js";
import type { BlockNode } from "./graph.js";
import { clearIn, goneFrom, killIn, monitorIn, pidIn, startIn } from "./process.js";
import type { Confinement } from "./process.js";
import { Qmp } from "./qmp.js";

const SHORT_MS = 5_000;

/** Of QEMU 5.2 and later. */
const NEEDED = ["block-export-add", "block-export-del", "nbd-server-start"];

/** An export that a daemon has. */
export interface DaemonExport {
  readonly id: string;
  readonly type: string;
  /** The node whose blocks it shows. */
  readonly node: string;
}

export class Daemon {
  readonly folder: string;
  readonly qmp: Qmp;

  private constructor(folder: string, qmp: Qmp) {
    this.folder = folder;
    this.qmp = qmp;
  }

  /** Resolves when it is gone, or let go of. */
  get closed(): Promise<void> {
    return this.qmp.closed;
  }

  /** Where it serves NBD. */
  get socket(): string {
    return join(this.folder, "nbd.sock");
  }

  /**
   * The folder's daemon, started if it does not run.
   * @throws {StorageError} `failed-precondition` when it is not installed or lacks what is needed
   */
  static async open(folder: string, confinement: Confinement, context: OpContext): Promise<Daemon> {
    const found = await Daemon.find(folder);
    if (found !== undefined) return found;
    await startIn(folder, confinement, context);
    let qmp: Qmp | undefined;
    try {
      qmp = await Qmp.connect(monitorIn(folder));
      const daemon = new Daemon(folder, qmp);
      await daemon.#prepare();
      return daemon;
    } catch (error) {
      qmp?.close();
      await clearIn(folder, context);
      throw error;
    }
  }

  /** The folder's daemon if it runs, ready for volumes. One that does not answer in time is ended. */
  static async find(folder: string, greetingMs?: number): Promise<Daemon | undefined> {
    if (pidIn(folder) === undefined) return undefined;
    try {
      const daemon = new Daemon(folder, await Qmp.connect(monitorIn(folder), greetingMs));
      // It may have been started, and no more.
      if (existsSync(daemon.socket)) return daemon;
      daemon.qmp.close();
    } catch {
      // It hangs, or is about to end.
    }
    await killIn(folder);
    return undefined;
  }

  get pid(): number | undefined {
    return pidIn(this.folder);
  }

  async #prepare(): Promise<void> {
    const commands = (await this.qmp.execute("query-commands")) as { name: string }[];
    const missing = NEEDED.filter((name) => !commands.some((one) => one.name === name));
    if (missing.length > 0)
      throw new StorageError(
        "failed-precondition",
        `this qemu-storage-daemon has no ${missing.join(", ")}; install QEMU 7 or later`,
      );
    const addr = { type: "unix", data: { path: this.socket } };
    await this.qmp.execute("nbd-server-start", { addr });
  }

  /** Of all its volumes. */
  async nodes(): Promise<readonly BlockNode[]> {
    return nodesIn(await this.qmp.execute("query-named-block-nodes", { flat: true }));
  }

  /** Of all its volumes. */
  async exports(): Promise<readonly DaemonExport[]> {
    const all = await this.qmp.execute("query-block-exports", undefined, SHORT_MS);
    return (all as { id: string; type: string; "node-name": string }[]).map(
      ({ id, type, "node-name": node }) => ({ id, type, node }),
    );
  }

  /** Ends it in order, or kills it, and removes its folder. */
  async stop(context: OpContext): Promise<void> {
    const { pid } = this;
    await this.qmp.execute("quit", undefined, SHORT_MS).catch(() => {});
    this.qmp.close();
    if (pid !== undefined) await goneFrom(this.folder, pid).catch(() => killIn(this.folder));
    await context.files.removeTree(this.folder);
  }

  /** Lets go of it; it goes on. */
  release(): void {
    this.qmp.close();
  }
}
