/**
 * How a volume becomes a file. QEMU's FUSE lets whoever may write change the volume's size by truncation, takes a
 * permission that NBD exports refuse, and a user who leaves at the wrong moment may end the daemon. So a file
 * has a daemon of its own, which reads and writes the volume's daemon over NBD, waits for it when it is
 * replaced, and has no size to change. Only a file that may grow is served by the volume's daemon itself.
 */
import { existsSync, lstatSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { StorageError } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { loopsOver } from "../../core/device-users.js";
import type { DoorRecord, Hold } from "../../core/exporter.js";
import { linkOf } from "../../core/kernel-text.js";
import { Daemon } from "../qemu-storage-daemon/daemon.js";
import type { VolumeDaemons } from "../qemu-storage-daemon/daemons.js";
import { filterFor } from "../qemu-storage-daemon/filters.js";
import { short } from "../qemu-storage-daemon/layout.js";
import { exportIDOf, exportNameOf } from "../qemu-storage-daemon/names.js";
import { OpenVolume } from "../qemu-storage-daemon/open-volume.js";
import { isWrittenThrough } from "../qemu-storage-daemon/options.js";
import { killIn, stopIn } from "../qemu-storage-daemon/process.js";
import { clearMounts, fuseMountsAt } from "./mounts.js";
import { isLoopSet, usersOf } from "./users.js";

/** What is noted of a file that was hidden, since nothing else tells who still has it open. */
interface Hidden {
  readonly mountIDs: readonly number[];
  readonly loops: readonly string[];
}

const HIDDEN = "hidden.json";

/** A client of NBD that was cut off comes again at once, and after a second. */
const READ_MS = 30_000;

/** One that has waited for long comes again every 16 seconds, and answers nothing else while a request waits. */
const RECONNECT_MS = 20_000;

export function fileOf({ attachment }: Hold): string {
  return attachment.fields?.["file"] ?? "";
}

export class FuseFiles {
  readonly #daemons: VolumeDaemons;
  readonly #reconnectSeconds: number;
  readonly #companions = new Map<string, OpenVolume>();
  readonly #onLost: () => void;

  constructor(daemons: VolumeDaemons, reconnectSeconds: number, onLost: () => void) {
    this.#daemons = daemons;
    this.#reconnectSeconds = reconnectSeconds;
    this.#onLost = onLost;
  }

  folderOf(hold: Hold): string {
    return join(this.#daemons.folder, `f-${short(exportNameOf(hold))}`);
  }

  async open(hold: Hold, door: DoorRecord, context: OpContext): Promise<void> {
    const name = exportNameOf(hold);
    const id = exportIDOf(hold);
    const { writethrough, growable = false, allowOther = "auto" } = door.options;
    const opened = await this.#daemons.open(hold.volume, context);
    const filter = filterFor(hold);
    // Who has a file open that may grow gets errors once its daemon is gone, and no flush that is answered.
    const isThrough = growable
      ? writethrough === true
      : isWrittenThrough(hold.volume, writethrough);
    const write = { writable: door.isWritable, writethrough: door.isWritable && isThrough };
    const file = fileOf(hold);
    const fuse = {
      mountpoint: file,
      writable: door.isWritable,
      growable,
      "allow-other": allowOther,
    };
    if (growable) {
      if ((await opened.exports()).includes(id) && fuseMountsAt(file).length > 0) return;
      await makeMountPoint(file, context);
      await opened.add({ id, type: "fuse", options: { ...fuse, ...write }, filter });
      return;
    }
    const nbd = { name, ...write };
    await opened.add({ id, type: "nbd", options: nbd, filter, isWaitedFor: true });
    const companion = await this.#companion(hold, door.isWritable, opened.socket, context);
    if ((await companion.exports()).includes(id) && fuseMountsAt(file).length > 0) return;
    await companion.removeExport(id);
    await makeMountPoint(file, context);
    await companion.add({ id, type: "fuse", options: fuse });
  }

  async #companion(
    hold: Hold,
    isWritable: boolean,
    socket: string,
    context: OpContext,
  ): Promise<OpenVolume> {
    const name = exportNameOf(hold);
    const folder = this.folderOf(hold);
    const known = this.#companions.get(name);
    // First of all: while a request of the file waits for its volume, the file's daemon answers nobody.
    if (existsSync(folder)) await lead(folder, socket, context);
    if (known !== undefined) return known;
    const found = await foundServed(folder, socket, context);
    // It mounts, which another user than the server's could not.
    const { memoryBytes } = this.#daemons;
    const daemon = found ?? (await Daemon.open(folder, { memoryBytes }, context));
    await lead(folder, socket, context);
    const nodes = (nodeName: string): readonly object[] => [
      {
        driver: "nbd",
        "node-name": nodeName,
        server: { type: "unix", path: wayIn(folder) },
        export: name,
        "reconnect-delay": this.#reconnectSeconds,
        "read-only": !isWritable,
        discard: "unmap",
      },
    ];
    const companion = new OpenVolume(daemon);
    await companion.open({ nodes }, context).catch(async (error: unknown) => {
      await daemon.stop(context);
      throw error;
    });
    this.#companions.set(name, companion);
    void daemon.closed.then(() => {
      if (this.#companions.get(name) !== companion) return;
      this.#companions.delete(name);
      this.#onLost();
    });
    return companion;
  }

  /** Takes the file away; who has it open gets errors from then on. */
  async remove(hold: Hold, context: OpContext): Promise<void> {
    const name = exportNameOf(hold);
    const folder = this.folderOf(hold);
    const daemon = this.#companions.get(name)?.daemon ?? (await Daemon.find(folder));
    this.#companions.delete(name);
    if (daemon !== undefined) {
      await new OpenVolume(daemon).removeExport(exportIDOf(hold)).catch(() => killIn(folder));
      await daemon.stop(context);
    } else await context.files.removeTree(folder);
    await this.#daemons.withdraw(hold.volume, exportIDOf(hold), context);
    const file = fileOf(hold);
    await clearMounts(file, context);
    if (!isGiven(hold)) await context.files.unlink(file);
  }

  /** Tells a file of its volume's new size. */
  async resize(hold: Hold, sizeBytes: number, context: OpContext): Promise<void> {
    const companion = this.#companions.get(exportNameOf(hold));
    if (companion === undefined) return;
    // It learns the size when it comes to the export anew, which it does with its next request.
    await readStart(fileOf(hold), context);
    await companion.resize(sizeBytes);
  }

  userOf(hold: Hold): string | undefined {
    const { mountIDs, loops } = this.#hidden(hold);
    const [user] = usersOf({ path: fileOf(hold), mountIDs });
    if (user !== undefined) return user;
    const loop = loops.find(isLoopSet);
    return loop && `the loop device /dev/${loop}`;
  }

  users(hold: Hold): readonly string[] {
    return usersOf({ path: fileOf(hold), mountIDs: [] });
  }

  #hidden(hold: Hold): Hidden {
    try {
      return JSON.parse(readFileSync(join(this.folderOf(hold), HIDDEN), "utf8")) as Hidden;
    } catch {
      return { mountIDs: [], loops: [] };
    }
  }

  /** Out of the tree: what is open stays, and nobody else finds it. */
  async hide(hold: Hold, context: OpContext): Promise<void> {
    const path = fileOf(hold);
    if (fuseMountsAt(path).length > 0) {
      const hidden: Hidden = { mountIDs: fuseMountsAt(path), loops: loopsOver(path) };
      await context.files.write(join(this.folderOf(hold), HIDDEN), JSON.stringify(hidden));
    }
    await clearMounts(path, context);
    if (!isGiven(hold)) await context.files.unlink(path);
  }

  /** Ends daemons of files that no record names, and takes away what stale mounts they left: after a crash. */
  async clearUnknown(holds: readonly Hold[], folder: string, context: OpContext): Promise<void> {
    const known = new Set(holds.map((hold) => this.folderOf(hold)));
    for (const name of entriesOf(this.#daemons.folder)) {
      const at = join(this.#daemons.folder, name);
      if (/^f-[\da-f]{16}$/.test(name) && !known.has(at)) await stopIn(at, context);
    }
    const files = new Set(holds.map(fileOf));
    for (const path of entriesOf(folder).map((name) => join(folder, name))) {
      if (files.has(path) || fuseMountsAt(path).length === 0) continue;
      await clearMounts(path, context);
      await context.files.unlink(path);
    }
  }

  release(): void {
    const all = [...this.#companions.values()];
    this.#companions.clear();
    for (const { daemon } of all) daemon.release();
  }
}

/** Under which a file's daemon finds the volume's, wherever that is. */
function wayIn(folder: string): string {
  return join(folder, "volume.sock");
}

async function lead(folder: string, socket: string, { files }: OpContext): Promise<void> {
  const way = wayIn(folder);
  if (linkOf(way) === socket) return;
  await files.unlink(way, { isSyncDeferred: true });
  await files.link(socket, way, { isSyncDeferred: true });
}

/** A file's daemon that runs. One of an earlier version of this server may be connected to where the volume is no more. */
async function foundServed(
  folder: string,
  socket: string,
  context: OpContext,
): Promise<Daemon | undefined> {
  const daemon = await Daemon.find(folder, RECONNECT_MS);
  if (daemon === undefined) return undefined;
  const nodes = await new OpenVolume(daemon).nodes();
  const isServed = nodes.every(({ filename }) =>
    [socket, wayIn(folder)].some((path) => filename.endsWith(`socket=${path}`)),
  );
  if (isServed) return daemon;
  await daemon.stop(context);
  return undefined;
}

/** Reads from what serves a file, and not from memory. */
async function readStart(file: string, { exec, signal }: OpContext): Promise<void> {
  const args = [`if=${file}`, "of=/dev/null", "iflag=direct", "bs=4096", "count=1", "status=none"];
  await exec("dd", args, signal, { timeoutMs: READ_MS });
}

/** Whether its file was there before the export, and so stays. */
function isGiven({ attachment }: Hold): boolean {
  return attachment.fields?.["mountpoint"] === "given";
}

function entriesOf(folder: string): readonly string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** An empty file of ours, without any mount that an earlier daemon has left over it. */
async function makeMountPoint(file: string, context: OpContext): Promise<void> {
  await clearMounts(file, context);
  const there = lstatSync(file, { throwIfNoEntry: false });
  if (there === undefined) {
    await context.files.create(file, "");
    return;
  }
  if (there.isFile() && there.size === 0) return;
  throw new StorageError(
    "failed-precondition",
    `${file} is not the empty file over which the volume would appear; look at what it is, and remove it`,
    { path: file },
  );
}
