/** Shares through the kernel's NFS server, which the host runs. */
import { existsSync, readFileSync, unwatchFile, watchFile } from "node:fs";
import { release } from "node:os";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { Ability, OpContext } from "../../core/driver.js";
import type { Session } from "../../core/exporter.js";
import { Locks } from "../../core/locks.js";
import { readMounts } from "../../core/mounts.js";
import type { NfsConfig } from "./config.js";
import { exportsText, namedIn, writeExports } from "./exports-file.js";
import { addExports, flushExports, isShownAs, listExports, removeExports } from "./exportfs.js";
import type { Exported } from "./exportfs.js";
import {
  isHiddenFromHost,
  isMounted,
  isMountedAt,
  mountShare,
  removeFolders,
  sharesBelow,
  unmountShare,
} from "./mounting.js";
import {
  expireClient,
  exportsInUse,
  hasNfsd,
  nfsClients,
  nfsdThreads,
  openStates,
} from "./nfsd.js";
import { UNLOCK_FILE, unlockFileSystem, whoNeedsLocks } from "./nfs3-locks.js";
import type { NfsServer } from "./server.js";
import type { Client, Share } from "./share.js";

/** @see exports(5) */
const ETAB = "/var/lib/nfs/etab";
const WATCH_MS = 5_000;

/** How long a cut may take. A request on the server's side waits for nothing but its disk. */
const CUT_MS = 20_000;

/** After which time of it the locks of a host of NFS 3 may be what the cut waits for. */
const LOCKS_MS = 2_000;

export interface KernelPlaces {
  /** Of this service, in /etc/exports.d. */
  readonly exportsFile: string;
  /** Where its shares are mounted. */
  readonly folder: string;
  /** Why nothing can be exported now, or undefined. */
  readonly unavailable?: () => string | undefined;
  /** The kernel's file by which locks of NFS 3 are let go. */
  readonly unlockFile?: string;
}

export class KernelServer implements NfsServer {
  readonly kind = "kernel";
  readonly port = 2049;
  readonly #config: NfsConfig;
  readonly #places: KernelPlaces;
  readonly #unavailable: () => string | undefined;
  readonly #locks = new Locks();
  /** What is served, by path. */
  readonly #shares = new Map<string, Share>();
  #isWatching = false;

  constructor(config: NfsConfig, places: KernelPlaces) {
    this.#config = config;
    this.#places = places;
    this.#unavailable = places.unavailable ?? unavailable;
  }

  async check({ source, volumeID }: Pick<Share, "source" | "volumeID">, context: OpContext) {
    const reason = this.#unavailable();
    if (reason !== undefined)
      throw new StorageError("failed-precondition", `cannot export volume ${volumeID}: ${reason}`, {
        volumeID,
      });
    checkAlone(source, volumeID, await listExports(context));
  }

  async add(share: Share, context: OpContext): Promise<void> {
    await mountShare(share.source, share.path, context);
    this.#shares.set(share.path, share);
    await this.#writeFile(context);
    await this.#export(share, await listExports(context), context);
  }

  /** Exports to the clients that are not in the table, or with other options. */
  async #export(share: Share, table: readonly Exported[], context: OpContext): Promise<void> {
    const missing = share.clients.filter(
      (client) => !table.some((one) => this.#isExported(one, share, client)),
    );
    for (const isReadOnly of [false, true]) {
      const clients = missing.filter((client) => client.isReadOnly === isReadOnly);
      const [first] = clients;
      if (first === undefined) continue;
      const addresses = clients.map(({ address }) => address);
      await addExports(context, share.path, addresses, this.#options(share, first));
    }
  }

  #isExported({ path, client, options }: Exported, share: Share, wanted: Client): boolean {
    if (path !== share.path || client !== wanted.address) return false;
    return isShownAs(this.#options(share, wanted), options);
  }

  #options = (share: Share, { isReadOnly }: Client): readonly string[] => {
    const { squash, anonUid, anonGid, security, subtreeCheck } = this.#config;
    const squashed = { none: "no_root_squash", root: "root_squash", all: "all_squash" }[squash];
    return [
      isReadOnly ? "ro" : "rw",
      "sync",
      subtreeCheck ? "subtree_check" : "no_subtree_check",
      squashed,
      `anonuid=${anonUid}`,
      `anongid=${anonGid}`,
      `sec=${security}`,
      "mountpoint",
      `fsid=${share.fsid}`,
    ];
  };

  async remove(share: Share, context: OpContext): Promise<void> {
    this.#shares.delete(share.path);
    await this.#writeFile(context);
    const table = await listExports(context);
    await removeExports(
      context,
      table.filter(({ path }) => path === share.path),
    );
    await this.#unmount(share, context);
  }

  /** What the kernel still does for a share keeps its mount: when that is gone, nothing can come any more. */
  async #unmount(share: Share, context: OpContext): Promise<void> {
    const { path, holder, volumeID, clients } = share;
    const addresses = new Set(clients.map(({ address }) => address));
    const began = performance.now();
    let locks: string | undefined;
    for (let pauseMs = 50; !(await unmountShare(path, context)); pauseMs *= 2) {
      const passedMs = performance.now() - began;
      if (passedMs > CUT_MS)
        throw new StorageError(
          "failed-precondition",
          `it cannot be proven that ${holder} is cut off from volume ${volumeID}: ${path} is withdrawn and still in use${locks ?? ""}; see what uses it (fuser -vm ${path}), end it or restart the NFS server (systemctl restart nfs-server), and try again`,
          { volumeID, instanceID: holder, path },
        );
      context.signal.throwIfAborted();
      // A file that a host of NFS 4 has open stays so until the host is forgotten.
      for (const { number, address } of nfsClients())
        if (addresses.has(address) && openStates(number) > 0) await expireClient(number, context);
      if (share.isVersion3 && passedMs > LOCKS_MS && locks === undefined) {
        locks = await this.#unlock(share, context);
        pauseMs = 50;
      }
      // An answer of the mount daemon, begun before the export was taken out, may have come after that.
      await flushExports(context);
      await sleep(pauseMs, undefined, { signal: context.signal });
    }
    await removeFolders(path, context);
  }

  /** Only where nobody else would lose something. @returns what is to be said when the cut fails all the same */
  async #unlock({ path, clients, volumeID }: Share, context: OpContext): Promise<string> {
    const file = this.#places.unlockFile ?? UNLOCK_FILE;
    const own = new Set(clients.map(({ address }) => address));
    try {
      const reason = whoNeedsLocks(path, {
        table: await listExports(context),
        mounts: readMounts(),
        sharesFolder: dirname(this.#places.folder),
        hasOpenFiles: nfsClients().some(
          ({ number, address }) => !own.has(address) && openStates(number) > 0,
        ),
        release: release(),
      });
      if (reason !== undefined)
        return `, perhaps by its locks (NFS 3), which can only be let go with all of that file system, and are not: ${reason}; if that may be: echo ${path} > ${file}`;
      context.log.info({ volumeID, path }, "locks of NFS 3 are let go, in the whole file system");
      await unlockFileSystem(path, context, file);
      return ", though its locks (NFS 3) were let go";
    } catch (error) {
      if (context.signal.aborted) throw error;
      context.log.warn({ error, path }, "locks of NFS 3 could not be let go");
      return `, perhaps by its locks (NFS 3), which could not be let go (${error instanceof Error ? error.message : String(error)})`;
    }
  }

  async restore(
    shares: readonly Share[],
    context: OpContext,
  ): Promise<ReadonlyMap<Share, unknown>> {
    for (const share of shares) this.#shares.set(share.path, share);
    // On a host where nothing was ever exported the tools may be missing.
    if (shares.length === 0 && this.#isUntouched()) return new Map();
    try {
      await this.#writeFile(context);
      const table = await listExports(context);
      await this.#withdrawOthers(table, context);
      return await this.#restoreAll(shares, table, context);
    } catch (error) {
      context.log.error({ error }, "exports could not be restored");
      return new Map(shares.map((share) => [share, error]));
    }
  }

  #isUntouched(): boolean {
    const { exportsFile, folder } = this.#places;
    return !existsSync(exportsFile) && !existsSync(folder);
  }

  async #restoreAll(
    shares: readonly Share[],
    table: readonly Exported[],
    context: OpContext,
  ): Promise<ReadonlyMap<Share, unknown>> {
    const failed = new Map<Share, unknown>();
    let isAnswerOpen = false;
    for (const share of shares) {
      try {
        if (!isMountedAt(share.path, share.source)) {
          await this.#mountAnew(share, context);
          isAnswerOpen ||= table.some(({ path }) => path === share.path);
        }
        await this.#export(share, table, context);
      } catch (error) {
        failed.set(share, error);
      }
    }
    // For what was not mounted the mount daemon gave no answer, for which the kernel would wait on.
    if (isAnswerOpen) await flushExports(context);
    return failed;
  }

  /** After a crash the mount may be of a folder that was there before. */
  async #mountAnew(share: Share, context: OpContext): Promise<void> {
    if (isMounted(share.path)) await this.#unmount(share, context);
    await mountShare(share.source, share.path, context);
  }

  /** What is below this service's folder and in no record. */
  async #withdrawOthers(table: readonly Exported[], context: OpContext): Promise<void> {
    const { folder } = this.#places;
    const isOther = (path: string): boolean =>
      path.startsWith(`${folder}/`) && !this.#shares.has(path);
    const gone = table.filter(
      ({ path, client }) =>
        isOther(path) ||
        this.#shares.get(path)?.clients.every(({ address }) => address !== client) === true,
    );
    await removeExports(context, gone);
    for (const path of new Set([...sharesBelow(folder), ...gone.map((one) => one.path)])) {
      if (!isOther(path)) continue;
      const clients = gone
        .filter((one) => one.path === path)
        .map(({ client }) => ({ address: client, isReadOnly: false }));
      const isVersion3 = this.#config.version === "3";
      const about = { volumeID: path, holder: "a host", source: "", path, fsid: "" };
      const left = { ...about, clients, isVersion3 };
      await this.#unmount(left, context).catch((error: unknown) =>
        context.log.warn({ error, path }, "an export of no record could not be withdrawn"),
      );
    }
  }

  async #writeFile(context: OpContext): Promise<void> {
    const { exportsFile } = this.#places;
    // What is served is looked at when it is this call's turn.
    await this.#locks.run(exportsFile, () =>
      writeExports(exportsFile, exportsText([...this.#shares.values()], this.#options), context),
    );
  }

  async sessions(shares: readonly Share[]): Promise<readonly Session[]> {
    const used = exportsInUse();
    const known = new Map(nfsClients().map((client) => [client.address, client]));
    return shares.flatMap(({ volumeID, path, clients }) =>
      clients.flatMap(({ address }) => {
        if (!used.some((one) => one.path === path && one.client === address)) return [];
        const client = known.get(address);
        const peer = client === undefined || client.name === "" ? address : client.name;
        return [{ volumeID, peer, address, state: client?.status ?? "used" }];
      }),
    );
  }

  /** Exports that someone has taken out of the table, though they stand in the file. */
  watch(onLost: () => void): () => void {
    const look = (): void => {
      if (this.#shares.size > 0 && isLost(this.#places.exportsFile)) onLost();
    };
    this.#isWatching = true;
    watchFile(ETAB, { interval: WATCH_MS, persistent: false }, look);
    return () => this.#stopWatching(look);
  }

  #stopWatching(look: () => void): void {
    if (this.#isWatching) unwatchFile(ETAB, look);
    this.#isWatching = false;
  }

  async abilities(context: OpContext): Promise<readonly Ability[]> {
    const reason = this.#unavailable();
    const others = await listExports(context).catch(() => undefined);
    return [
      {
        name: "exports by the kernel's NFS server",
        available: reason === undefined && others !== undefined,
        detail:
          reason ??
          (others === undefined
            ? "exportfs cannot be run (Debian: apt-get install nfs-kernel-server)"
            : `${nfsdThreads()} threads; ${others.length} exports`),
      },
    ];
  }

  async close(): Promise<void> {
    await this.#locks.idle();
  }
}

function isLost(exportsFile: string): boolean {
  try {
    const there = new Set(
      readFileSync(ETAB, "utf8")
        .split("\n")
        .map((line) => line.replace(/\(.*$/, "").replace("\t", " ")),
    );
    return namedIn(readFileSync(exportsFile, "utf8")).some((one) => !there.has(one));
  } catch {
    return false;
  }
}

/** Why nothing can be exported now. */
function unavailable(): string | undefined {
  if (isHiddenFromHost())
    return "the mounts of this process are hidden from the host's NFS server; run it without a mount namespace of its own (see docs/exporters/nfs.md)";
  if (!hasNfsd() || nfsdThreads() === 0)
    return 'the kernel\'s NFS server does not run; start it (systemctl enable --now nfs-server), or set "nfs.mode: ganesha"';
  return undefined;
}

/** Whoever may have a folder above would go round every cut. */
function checkAlone(source: string, volumeID: string, table: readonly Exported[]): void {
  const above = table.find(
    ({ path }) => source === path || source.startsWith(path === "/" ? "/" : `${path}/`),
  );
  if (above === undefined) return;
  throw new StorageError(
    "failed-precondition",
    `cannot export volume ${volumeID}: it is a part of ${above.path}, which somebody else exports to ${above.client}, so that it could be written past this server; take that export back first (exportfs -u, /etc/exports)`,
    { volumeID, path: above.path, client: above.client },
  );
}
