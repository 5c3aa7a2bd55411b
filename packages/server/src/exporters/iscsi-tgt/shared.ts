/** Daemons by their sockets: services of one server with the same portals have one tgtd between them. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { ExporterContext } from "../../core/exporter.js";
import { Locks } from "../../core/locks.js";
import { formatPortal, listeningPortals } from "../iscsi/portals.js";
import { Accounts } from "./accounts.js";
import type { TgtConfig } from "./config.js";
import { Daemon } from "./daemon.js";
import { TgtAdm } from "./tgtadm.js";

export interface Shared {
  readonly daemon: Daemon;
  readonly accounts: Accounts;
  readonly isOwn: boolean;
  /** The owners whose targets are this server's. */
  readonly owners: Set<string>;
  /** For what several commands must do as one: starting the daemon, changing accounts. */
  readonly locks: Locks;
  /** To be called when the exporter closes. */
  release(owner: string): void;
}

const all = new Map<string, Shared>();

/** The longest path of a socket (unix(7)), without its NUL. */
const MAX_SOCKET = 107;

export async function sharedDaemon(
  { socket, portals }: TgtConfig,
  owner: string,
  { libFolder, files }: ExporterContext,
): Promise<Shared> {
  const isOwn = socket === undefined;
  const key = createHash("sha256")
    .update(portals.map(formatPortal).toSorted().join(","))
    .digest("hex");
  const folder = join(libFolder, "tgt");
  const path = socket ?? join(folder, key.slice(0, 8));
  if (path.length + ".0".length > MAX_SOCKET)
    throw new StorageError(
      "invalid-argument",
      `the control socket of tgtd would be ${path}.0, which is longer than a socket's path may be (${MAX_SOCKET}); choose a shorter <lib> folder`,
      { path },
    );
  if (isOwn) await files.makeFolder(folder);
  let shared = all.get(path);
  if (shared === undefined) {
    const adm = new TgtAdm(path);
    shared = {
      daemon: new Daemon(adm, () => listeningPortals(portals), isOwn),
      accounts: new Accounts(adm),
      isOwn,
      owners: new Set(),
      locks: new Locks(),
      release(released) {
        this.owners.delete(released);
        if (this.owners.size === 0) all.delete(path);
      },
    };
    all.set(path, shared);
  }
  shared.owners.add(owner);
  return shared;
}
