/**
 * The one door for changes to files. Each change is durable when its promise resolves: the file is synced
 * before it gets its name, the folder after. Reading needs no door.
 */
import { constants } from "node:fs";
import * as fs from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { basename, dirname, join } from "node:path";
import { NO_FAULTS } from "./faults.js";
import type { FaultPlan } from "./faults.js";
import { writeSparse } from "./sparse-file.js";
import type { SparseOptions } from "./sparse-file.js";

export interface WriteOptions {
  /** Default 0600: records may name hosts. */
  readonly mode?: number;
}

export interface ChangeOptions {
  /** Leaves the sync of the folder to a later change in the same folder, which then covers both. */
  readonly isSyncDeferred?: boolean;
}

export interface Files {
  /** Replaces a file as a whole: temporary file, sync, rename, sync of the folder. */
  write(path: string, content: string | Uint8Array, options?: WriteOptions): Promise<void>;
  /** Removes a file; one that is not there is fine. */
  unlink(path: string, options?: ChangeOptions): Promise<void>;
  /** Makes a folder; one that is there is fine, anything else of that name is an error. */
  makeFolder(path: string, mode?: number, options?: ChangeOptions): Promise<void>;
  /** Removes a folder with everything in it, or a file; what is not there is fine. Follows no link. */
  removeTree(path: string, options?: ChangeOptions): Promise<void>;
  /** Renames within one file system and syncs both folders. */
  rename(from: string, to: string, options?: ChangeOptions): Promise<void>;
  /** Gives a value to a file of the kernel, in one piece: it must be there, and there is nothing to sync. */
  writeAttribute(path: string, value: string): Promise<void>;
  /** Makes a symbolic link; one that leads to the same place is fine, anything else of that name an error. */
  link(target: string, path: string, options?: ChangeOptions): Promise<void>;
  /** Gives a file a second name on the same file system. @throws {Error} `EEXIST` when the name is taken */
  hardLink(path: string, name: string, options?: ChangeOptions): Promise<void>;
  /** Removes an empty folder; one that is not there is fine. */
  removeFolder(path: string, options?: ChangeOptions): Promise<void>;
  /**
   * Writes a new file, without any sync: for callers who have more to change, and sync it all together.
   * @throws {Error} `EEXIST` when there is something of that name
   */
  create(path: string, content: string, options?: WriteOptions): Promise<void>;
  /**
   * Writes a new file as its bytes come, without any sync. Long runs of zeros become holes.
   * @returns how many bytes it has
   * @throws {Error} `EEXIST` when there is something of that name; what the stream fails with
   */
  createFrom(
    path: string,
    bytes: AsyncIterable<Uint8Array>,
    options?: SparseOptions,
  ): Promise<number>;
  /** Gives a file a length, without any sync; what it did not have are holes. Follows no link. */
  resize(path: string, sizeBytes: number): Promise<void>;
  /** Fills a part of a file with zeros that take their space, without any sync. Follows no link. */
  writeZeros(path: string, offset: number, length: number): Promise<void>;
  /** Makes the content of a file durable; its name takes a sync of the folder. */
  syncFile(path: string): Promise<void>;
  /** Makes the names in a folder durable. */
  syncFolder(folder: string): Promise<void>;
}

/** Names that `write` leaves behind when it is cut short start so; they may be removed at any time. */
export const TEMPORARY_PREFIX = ".tmp-";

/** Several changes in one folder share one sync of it: the first syncs, those that came meanwhile the next. */
class FolderSync {
  readonly #waiting = new Map<string, Promise<void>>();
  readonly #running = new Map<string, Promise<void>>();

  sync(folder: string): Promise<void> {
    const waiting = this.#waiting.get(folder);
    if (waiting !== undefined) return waiting;
    const running = this.#running.get(folder);
    if (running === undefined) return this.#start(folder);
    // The running sync may have begun before this change, so it does not count for it.
    const next = running
      .catch(() => {})
      .then(() => {
        this.#waiting.delete(folder);
        return this.#start(folder);
      });
    this.#waiting.set(folder, next);
    return next;
  }

  #start(folder: string): Promise<void> {
    const sync = syncFolder(folder).finally(() => {
      if (this.#running.get(folder) === sync) this.#running.delete(folder);
    });
    this.#running.set(folder, sync);
    return sync;
  }
}

async function syncFolder(path: string): Promise<void> {
  const handle = await fs.open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function syncFile(path: string): Promise<void> {
  const handle = await fs.open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

async function writeSynced(
  path: string,
  content: string | Uint8Array,
  mode: number,
): Promise<void> {
  const handle = await fs.open(path, "w", mode);
  try {
    await handle.writeFile(content);
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

async function writeOnce(path: string, value: string): Promise<void> {
  const handle = await fs.open(path, constants.O_WRONLY);
  try {
    // The kernel takes each write call as a value of its own.
    await handle.write(Buffer.from(value));
  } finally {
    await handle.close();
  }
}

async function resize(path: string, sizeBytes: number): Promise<void> {
  const handle = await fs.open(path, constants.O_WRONLY | constants.O_NOFOLLOW);
  try {
    await handle.truncate(sizeBytes);
  } finally {
    await handle.close();
  }
}

const ZEROS = Buffer.alloc(1024 * 1024);

async function writeZeros(path: string, offset: number, length: number): Promise<void> {
  const handle = await fs.open(path, constants.O_WRONLY | constants.O_NOFOLLOW);
  try {
    for (let done = 0; done < length;) {
      const size = Math.min(ZEROS.length, length - done);
      done += (await handle.write(ZEROS, 0, size, offset + done)).bytesWritten;
    }
  } finally {
    await handle.close();
  }
}

async function linkOnce(target: string, path: string): Promise<void> {
  try {
    await fs.symlink(target, path);
  } catch (error) {
    if (!isCode(error, "EEXIST") || (await fs.realpath(path)) !== (await fs.realpath(target)))
      throw error;
  }
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === code;
}

/** What is gone already need not be removed. */
function unlessMissing(error: unknown): void {
  if (!isCode(error, "ENOENT")) throw error;
}

/** Process ids come again, in a container after every start: they would name an earlier run's leftovers. */
const RUN = randomBytes(6).toString("hex");
let temporaries = 0;

export function openFiles(faults: FaultPlan = NO_FAULTS, signal?: AbortSignal): Files {
  const folders = SHARED_SYNC;
  const pass = <T>(what: string, act: () => Promise<T>): Promise<T> =>
    faults.pass({ door: "file", what }, signal, act);
  const syncFolder = (folder: string): Promise<void> =>
    pass(`sync ${folder}`, () => folders.sync(folder));
  const syncFolderOf = async (path: string, { isSyncDeferred = false }: ChangeOptions = {}) => {
    if (!isSyncDeferred) await syncFolder(dirname(path));
  };
  return {
    async write(path, content, { mode = 0o600 } = {}) {
      temporaries += 1;
      const temporary = join(
        dirname(path),
        `${TEMPORARY_PREFIX}${RUN}-${temporaries}-${basename(path)}`,
      );
      try {
        await pass(`write ${temporary}`, () => writeSynced(temporary, content, mode));
        await pass(`rename ${temporary} ${path}`, () => fs.rename(temporary, path));
      } catch (error) {
        await pass(`unlink ${temporary}`, () => fs.rm(temporary, { force: true })).catch(() => {});
        throw error;
      }
      await syncFolderOf(path);
    },
    async unlink(path, options) {
      // Not `fs.rm`, which looks twice at what it removes.
      await pass(`unlink ${path}`, () => fs.unlink(path).catch(unlessMissing));
      await syncFolderOf(path, options);
    },
    async makeFolder(path, mode = 0o700, options) {
      await pass(`mkdir ${path}`, async () => {
        try {
          await fs.mkdir(path, { mode });
        } catch (error) {
          if (!isCode(error, "EEXIST") || !(await fs.lstat(path)).isDirectory()) throw error;
        }
      });
      await syncFolderOf(path, options);
    },
    async removeTree(path, options) {
      await pass(`remove ${path}`, () =>
        fs.rm(path, { recursive: true, force: true, maxRetries: 3 }),
      );
      await syncFolderOf(path, options);
    },
    async rename(from, to, options) {
      await pass(`rename ${from} ${to}`, () => fs.rename(from, to));
      await syncFolderOf(to, options);
      if (dirname(from) !== dirname(to)) await syncFolderOf(from, options);
    },
    async writeAttribute(path, value) {
      await pass(`set ${path}`, () => writeOnce(path, value));
    },
    async link(target, path, options) {
      await pass(`link ${target} ${path}`, () => linkOnce(target, path));
      await syncFolderOf(path, options);
    },
    async hardLink(path, name, options) {
      await pass(`link ${path} ${name}`, () => fs.link(path, name));
      await syncFolderOf(name, options);
    },
    async removeFolder(path, options) {
      await pass(`rmdir ${path}`, () => fs.rmdir(path).catch(unlessMissing));
      await syncFolderOf(path, options);
    },
    create: (path, content, { mode = 0o600 } = {}) =>
      pass(`create ${path}`, () => fs.writeFile(path, content, { flag: "wx", mode })),
    createFrom: (path, bytes, options) =>
      pass(`write ${path}`, () => writeSparse(path, bytes, options)),
    resize: (path, sizeBytes) => pass(`resize ${path}`, () => resize(path, sizeBytes)),
    writeZeros: (path, offset, length) =>
      pass(`zero ${path}`, () => writeZeros(path, offset, length)),
    syncFile: (path) => pass(`sync ${path}`, () => syncFile(path)),
    syncFolder,
  };
}

const SHARED_SYNC = new FolderSync();
