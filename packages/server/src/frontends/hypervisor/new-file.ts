/**
 * Making a file in a location. It gets its name when it is whole: until then it lies beside its place under a name
 * of this server's, which tells recovery what to remove.
 */
import { createHash } from "node:crypto";
import { lstat, statfs } from "node:fs/promises";
import {
  KIB,
  StorageError,
  VIR_STORAGE_STAT_BUFFER_TYPE_FILE,
  formatSize,
} from "@libstorage/model";
import type { StorageStat } from "@libstorage/model";
import type { OpContext } from "../../core/driver.js";
import { CommandError } from "../../core/exec.js";
import { TEMPORARY_PREFIX } from "../../core/files.js";
import type { HostRecovery } from "../../core/recovery.js";
import type { Work } from "../../core/operations.js";
import type { Locations } from "./locations.js";
import { Place } from "./place.js";

export interface NewFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly isSparse: boolean;
}

/** So much is taken at once, so that progress shows and a cancel is heard. */
const PIECE_BYTES = 256 * 1024 * KIB;
const ZEROS_BYTES = 16 * 1024 * KIB;

/** Whoever asks for the same file in the same transaction again gets the same. */
function temporaryOf(path: string, tx: string): string {
  const hash = createHash("sha256").update(`${tx}\n${path}`).digest("hex").slice(0, 24);
  return `${TEMPORARY_PREFIX}new-${hash}`;
}

async function inodeOf(path: string): Promise<bigint | undefined> {
  const there = await lstat(path, { bigint: true }).catch(() => undefined);
  return there?.ino;
}

function fileOf(sizeBytes: number): StorageStat {
  return { type: VIR_STORAGE_STAT_BUFFER_TYPE_FILE, size: sizeBytes };
}

function exists(path: string): StorageError {
  return new StorageError(
    "already-exists",
    `${path} exists already; choose another name, or use that file`,
    { path },
  );
}

function full(path: string, wanted: number, there: number): StorageError {
  return new StorageError(
    "resource-exhausted",
    `there is no space for ${path}: it is to have ${formatSize(wanted)}, and ${formatSize(there)} are free`,
    { path, sizeBytes: wanted, freeBytes: there },
  );
}

/** Refuses what cannot be made, before anything is written down. @throws {StorageError} */
export async function checkNewFile(
  { path, sizeBytes }: NewFile,
  locations: Locations,
): Promise<void> {
  const place = await Place.open(path, locations);
  try {
    if ((await inodeOf(place.own())) !== undefined) throw exists(path);
    const { bsize, bavail } = await statfs(place.folder);
    // A sparse file too: a guest that fills it must not find the disk full.
    if (bsize * bavail < sizeBytes) throw full(path, sizeBytes, bsize * bavail);
  } finally {
    await place.close();
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

/** What the system said of a file, as the caller may read it. */
function told(error: unknown, { path, sizeBytes }: NewFile): unknown {
  const code = codeOf(error);
  if (code === "EEXIST") return exists(path);
  const isFull =
    code === "ENOSPC" ||
    code === "EDQUOT" ||
    (error instanceof CommandError && /No space left|quota exceeded/i.test(error.stderr));
  if (isFull) return full(path, sizeBytes, 0);
  if (code === "EFBIG")
    return new StorageError(
      "invalid-argument",
      `the file system of ${path} has no files of ${formatSize(sizeBytes)}`,
      { path, sizeBytes },
    );
  if (code === "EPERM" || code === "EACCES" || code === "EROFS" || code === "ENOTSUP")
    return new StorageError(
      "permission-denied",
      `${path} cannot be made: ${(error as Error).message.replace(/,.*$/s, "")}; the server's user must be able to write there`,
      { path },
    );
  return error;
}

/** Takes the space of a file piece by piece; with zeros where the file system cannot reserve it. */
async function fill(
  place: Place,
  name: string,
  sizeBytes: number,
  context: OpContext,
): Promise<void> {
  const { exec, files, progress, signal } = context;
  let done = 0;
  let isReserving = true;
  progress(0, sizeBytes, "bytes");
  while (done < sizeBytes) {
    signal.throwIfAborted();
    const length = Math.min(isReserving ? PIECE_BYTES : ZEROS_BYTES, sizeBytes - done);
    if (isReserving) {
      const range = ["--offset", String(done), "--length", String(length)];
      try {
        await exec("fallocate", [...range, place.foreign(name)], signal);
      } catch (error) {
        if (!(error instanceof CommandError) || !cannotReserve(error)) throw error;
        isReserving = false;
        continue;
      }
    } else await files.writeZeros(place.own(name), done, length);
    done += length;
    progress(done, sizeBytes, "bytes");
  }
}

function cannotReserve({ isMissing, stderr }: CommandError): boolean {
  return isMissing || /not supported|not permitted/i.test(stderr);
}

/** Makes a file; nothing is left of it when that fails. */
export function newFileWork(file: NewFile, tx: string, locations: Locations): Work<StorageStat> {
  const { path, sizeBytes, isSparse } = file;
  const temporary = temporaryOf(path, tx);
  let inode: bigint | undefined;
  return {
    subject: { path, sizeBytes },
    run: async (context) => {
      const { files } = context;
      const place = await Place.open(path, locations);
      try {
        const own = place.own(temporary);
        // Left by an earlier try of the same transaction.
        await files.unlink(own, { isSyncDeferred: true });
        await files.create(own, "");
        inode = await inodeOf(own);
        if (!isSparse) await fill(place, temporary, sizeBytes, context);
        await files.resize(own, sizeBytes);
        await files.syncFile(own);
        context.signal.throwIfAborted();
        await files.hardLink(own, place.own(), { isSyncDeferred: true });
        await files.unlink(own);
        return fileOf(sizeBytes);
      } catch (error) {
        throw told(error, file);
      } finally {
        await place.close();
      }
    },
    apply: () => {},
    takeBack: async (context) => {
      const place = await Place.open(path, locations);
      try {
        if (inode !== undefined && (await inodeOf(place.own())) === inode)
          await context.files.unlink(place.own(), { isSyncDeferred: true });
        await context.files.unlink(place.own(temporary));
      } finally {
        await place.close();
      }
    },
  };
}

/** After a crash: the file that has its name is whole; the other is removed. */
export function recoverNewFile(locations: Locations): HostRecovery {
  return async ({ path = "", sizeBytes = 0, tx }, { files, log }) => {
    let place: Place;
    try {
      place = await Place.open(path, locations);
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      // Its folder is gone, or no location any more: it is not this server's to touch.
      log.warn({ path, reason: error.message }, "what is left of a new file is not looked for");
      return undefined;
    }
    try {
      const there = await lstat(place.own()).catch(() => undefined);
      const own = await inodeOf(place.own(temporaryOf(path, tx)));
      const isDone =
        there !== undefined &&
        there.size === sizeBytes &&
        (own === undefined || BigInt(there.ino) === own);
      await files.unlink(place.own(temporaryOf(path, tx)));
      return isDone ? fileOf(sizeBytes) : undefined;
    } finally {
      await place.close();
    }
  };
}
