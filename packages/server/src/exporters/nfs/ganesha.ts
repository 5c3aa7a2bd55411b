/** Shares through an nfs-ganesha of this server's own, for hosts whose kernel serves no NFS. */
import { createHash } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { Ability, OpContext } from "../../core/driver.js";
import type { Session } from "../../core/exporter.js";
import { Locks } from "../../core/locks.js";
import type { NfsConfig } from "./config.js";
import { ganeshaText } from "./ganesha-config.js";
import { GaneshaDaemon } from "./ganesha-daemon.js";
import {
  isMounted,
  isMountedAt,
  makeFolders,
  mountShare,
  removeFolders,
  sharesBelow,
  unmountShare,
} from "./mounting.js";
import type { NfsServer } from "./server.js";
import type { Share } from "./share.js";
import { tcpConnections } from "./sockets.js";

const WATCH_MS = 2_000;
/** It reads its configuration within milliseconds; signals that come too close are one. */
const ASK_AGAIN_MS = 500;
const APPLY_MS = 10_000;
/** After that it is ended, which cuts everybody off. */
const CUT_MS = 5_000;
const MOST_NUMBERS = 65_535;

export interface GaneshaPlaces {
  /** Where this service's shares are mounted. */
  readonly folder: string;
  /** For configuration, log and what outlives a restart. */
  readonly state: string;
}

export class GaneshaServer implements NfsServer {
  readonly kind = "ganesha";
  readonly port: number;
  readonly #config: NfsConfig;
  readonly #places: GaneshaPlaces;
  readonly #configFile: string;
  readonly #recovery: string;
  readonly #daemon: GaneshaDaemon;
  readonly #locks = new Locks();
  /** What is served, by path. */
  readonly #shares = new Map<string, Share>();
  /** By path; with those that are about to be served. */
  readonly #numbers = new Map<string, number>();

  constructor(config: NfsConfig, places: GaneshaPlaces) {
    this.port = config.port;
    this.#config = config;
    this.#places = places;
    this.#configFile = join(places.state, "ganesha.conf");
    this.#recovery = join(places.state, "recovery");
    const log = join(places.state, "ganesha.log");
    const pid = join(places.state, "ganesha.pid");
    this.#daemon = new GaneshaDaemon({ config: this.#configFile, log, pid }, config.port);
  }

  /** Of several folders of one file system it would export the first only, and see no difference between them. */
  async check({ source, volumeID }: Pick<Share, "source" | "volumeID">): Promise<void> {
    if (statSync(source).dev !== statSync(dirname(source)).dev) return;
    throw new StorageError(
      "failed-precondition",
      `cannot export volume ${volumeID} through nfs-ganesha: ${source} is a folder of a larger file system, and it can only export file systems and btrfs subvolumes as a whole; use the btrfs driver, or set "nfs.mode: kernel"`,
      { volumeID, path: source },
    );
  }

  /** From the path, so that a number does not soon come again for something else. */
  numberFor(path: string): number {
    const own = this.#numbers.get(path);
    if (own !== undefined) return own;
    const taken = new Set(this.#numbers.values());
    const start = createHash("sha256").update(path).digest().readUInt16BE(0);
    for (let step = 0; step < MOST_NUMBERS; step += 1) {
      const number = 1 + ((start + step) % MOST_NUMBERS);
      if (taken.has(number)) continue;
      this.#numbers.set(path, number);
      return number;
    }
    throw new StorageError("resource-exhausted", `nfs-ganesha takes ${MOST_NUMBERS} exports`);
  }

  async add(share: Share, context: OpContext): Promise<void> {
    await mountShare(share.source, share.path, context);
    this.#take(share);
    await this.#apply(context);
    await this.#untilServed(share, context);
  }

  #take(share: Share): void {
    const number = share.number ?? this.numberFor(share.path);
    this.#numbers.set(share.path, number);
    this.#shares.set(share.path, { ...share, number });
  }

  async #untilServed({ path, volumeID }: Share, context: OpContext): Promise<void> {
    const started = performance.now();
    let askAt = started + ASK_AGAIN_MS;
    while (!this.#daemon.serves(path)) {
      const now = performance.now();
      if (now > started + APPLY_MS)
        throw this.#daemon.failure(`nfs-ganesha does not export volume ${volumeID}`);
      if (now > askAt) {
        await this.#apply(context);
        askAt = performance.now() + ASK_AGAIN_MS;
      }
      await sleep(10, undefined, { signal: context.signal });
    }
  }

  /** Has the daemon serve what is to be served; without anything it ends. */
  async #apply(context: OpContext): Promise<void> {
    await this.#locks.run("daemon", async () => {
      if (this.#shares.size === 0) {
        await this.#daemon.stop(context);
        if (!existsSync(this.#places.state)) return;
        await context.files.unlink(this.#configFile);
        // Nobody is left for whom the next start would have to wait.
        await context.files.removeTree(this.#recovery);
        return;
      }
      const { state } = this.#places;
      if (!existsSync(state)) await makeFolders(state, context, 0o700);
      const shares = [...this.#shares.values()];
      const text = ganeshaText(this.#config, shares, this.#recovery);
      await context.files.write(this.#configFile, text);
      await this.#daemon.apply(context);
    });
  }

  async remove(share: Share, context: OpContext): Promise<void> {
    this.#shares.delete(share.path);
    this.#numbers.delete(share.path);
    if (isMounted(share.path) || this.#daemon.serves(share.path)) await this.#apply(context);
    await this.#unmount(share.path, context);
  }

  /** It holds the mount while it has a file or a request of the share. */
  async #unmount(path: string, context: OpContext): Promise<void> {
    const started = performance.now();
    let askAt = started + ASK_AGAIN_MS;
    let isEnded = false;
    while (!(await unmountShare(path, context))) {
      const now = performance.now();
      if (now > started + 2 * CUT_MS)
        throw new StorageError(
          "failed-precondition",
          `it cannot be proven that the share ${path} is not used any more: it is withdrawn and cannot be unmounted; see what uses it (fuser -vm ${path}), end it and try again`,
          { path },
        );
      if (now > started + CUT_MS && !isEnded) {
        await this.#locks.run("daemon", () => this.#daemon.stop(context));
        isEnded = true;
      } else if (now > askAt) {
        await this.#apply(context);
        askAt = performance.now() + ASK_AGAIN_MS;
      }
      await sleep(20, undefined, { signal: context.signal });
    }
    if (isEnded) await this.#apply(context);
    await removeFolders(path, context);
  }

  async restore(
    shares: readonly Share[],
    context: OpContext,
  ): Promise<ReadonlyMap<Share, unknown>> {
    const failed = new Map<Share, unknown>();
    for (const share of shares) {
      try {
        // Else what is below the mount would be exported.
        await this.#mountAnew(share, context);
        this.#take(share);
      } catch (error) {
        failed.set(share, error);
      }
    }
    const left = sharesBelow(this.#places.folder).filter((path) => !this.#shares.has(path));
    if (this.#shares.size === 0 && left.length === 0 && this.#daemon.pid === undefined)
      return failed;
    try {
      await this.#apply(context);
      for (const path of left) await this.#unmount(path, context);
      for (const share of shares) if (!failed.has(share)) await this.#untilServed(share, context);
    } catch (error) {
      context.log.error({ error }, "exports could not be restored");
      for (const share of shares) failed.set(share, error);
    }
    return failed;
  }

  /** What is mounted there may be of a folder that had the name before. */
  async #mountAnew({ source, path }: Share, context: OpContext): Promise<void> {
    if (isMounted(path) && !isMountedAt(path, source)) await this.#unmount(path, context);
    await mountShare(source, path, context);
  }

  async sessions(shares: readonly Share[]): Promise<readonly Session[]> {
    const peers = new Set(
      tcpConnections()
        .filter(({ port, state }) => port === this.port && state === "established")
        .map(({ peer }) => peer),
    );
    return shares.flatMap(({ volumeID, clients }) =>
      clients
        .filter(({ address }) => peers.has(address))
        .map(({ address }) => ({ volumeID, peer: address, address, state: "connected" })),
    );
  }

  watch(onLost: () => void): () => void {
    const look = (): void => {
      if (this.#shares.size > 0 && this.#daemon.pid === undefined) onLost();
    };
    const timer = setInterval(look, WATCH_MS).unref();
    return () => clearInterval(timer);
  }

  async abilities({ exec, signal }: OpContext): Promise<readonly Ability[]> {
    const name = "exports by nfs-ganesha";
    try {
      const { stdout, stderr } = await exec("ganesha.nfsd", ["-v"], signal);
      const version = /Release = (\S+)/.exec(stdout + stderr)?.[1] ?? "of an unknown version";
      const { pid } = this.#daemon;
      const now = pid === undefined ? "not running now" : `running as process ${pid}`;
      return [{ name, available: true, detail: `${version}, ${now}; port ${this.port}` }];
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      return [{ name, available: false, detail }];
    }
  }

  /** The daemon goes on serving. */
  async close(): Promise<void> {
    await this.#locks.idle();
  }
}
