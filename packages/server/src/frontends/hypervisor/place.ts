/**
 * From a path that a stranger names to a file that was looked at: opened first, and asked then where it really
 * is, so that no link and no change of a folder meanwhile leads out of the locations.
 */
import { constants, lstat, open, readlink, realpath } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { basename, dirname, join, posix } from "node:path";
import { StorageError } from "@libstorage/model";
import type { Locations } from "./locations.js";

/** `O_PATH` of open(2), which Node does not name: a handle that says where it is, and touches nothing. */
const O_PATH = 0o10_000_000;

const MAX_PATH_BYTES = 4095;

/** @throws {StorageError} `permission-denied` */
function outside(path: string, { patterns }: Locations, why = ""): StorageError {
  const known =
    patterns.length === 0
      ? "this server has none: set libstorage.server.hypervisor.fileLocations"
      : `they are ${patterns.join(", ")}`;
  return new StorageError(
    "permission-denied",
    `${path} is outside the file locations${why}; ${known}`,
    { path },
  );
}

/**
 * A path as text: absolute, and without parts that lead elsewhere.
 * @throws {StorageError} `invalid-argument`, or `permission-denied` when it lies in no location
 */
function checkPath(path: string, isAllowed: (path: string) => boolean, locations: Locations): void {
  if (/\p{Cc}/u.test(path) || Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw new StorageError(
      "invalid-argument",
      `a path has at most ${MAX_PATH_BYTES} bytes and no control characters`,
    );
  if (!path.startsWith("/"))
    throw new StorageError("invalid-argument", `the path "${path}" must begin with /`, { path });
  if (posix.normalize(path) !== path || path.endsWith("/") || !isAllowed(path))
    throw outside(path, locations);
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

function isAbsent(error: unknown): boolean {
  return codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR";
}

function unreadable(path: string, error: unknown): StorageError {
  const code = codeOf(error);
  if (code === "EACCES" || code === "EPERM")
    return new StorageError("permission-denied", `the server may not look at ${path}`, { path });
  const { message } = error as Error;
  return new StorageError("internal", `${path} cannot be opened: ${message}`, { path });
}

/** Where an open file or folder is now; undefined when it has been removed. */
async function whereIs(handle: FileHandle): Promise<string | undefined> {
  if ((await handle.stat()).nlink === 0) return undefined;
  return readlink(`/proc/self/fd/${handle.fd}`);
}

/** The nearest folder above what is not there must lie where the rest of the path would be in a location. */
async function checkAbsent(
  path: string,
  isReal: (path: string) => Promise<boolean>,
  locations: Locations,
): Promise<void> {
  for (let above = path; ; above = dirname(above)) {
    const there = await lstat(above).catch(() => undefined);
    if (there === undefined && above !== "/") continue;
    const real = await realpath(above).catch(() => undefined);
    if (real === undefined || !(await isReal(join(real, path.slice(above.length)))))
      throw outside(path, locations, ": a link leads out of them");
    return;
  }
}

/** The right of a path to be looked at: a file in a location, or a location's folder. */
interface Right {
  readonly hasText: (path: string) => boolean;
  readonly hasReal: (path: string) => Promise<boolean>;
}

function fileRight(locations: Locations): Right {
  return {
    hasText: (path) => locations.hasFile(path),
    hasReal: (path) => locations.hasRealFile(path),
  };
}

function folderRight(locations: Locations): Right {
  return {
    hasText: (path) => locations.hasFile(path) || locations.hasFolder(path),
    hasReal: async (path) => (await locations.hasRealFile(path)) || locations.hasRealFolder(path),
  };
}

async function openAt(
  path: string,
  right: Right,
  locations: Locations,
): Promise<FileHandle | undefined> {
  checkPath(path, right.hasText, locations);
  let handle: FileHandle;
  try {
    handle = await open(path, O_PATH);
  } catch (error) {
    if (!isAbsent(error)) throw unreadable(path, error);
    await checkAbsent(path, right.hasReal, locations);
    return undefined;
  }
  try {
    const real = await whereIs(handle);
    if (real !== undefined) {
      if (!(await right.hasReal(real)))
        throw outside(path, locations, `: it is a link, or below one, to ${real}`);
      return handle;
    }
  } catch (error) {
    await handle.close();
    throw error;
  }
  await handle.close();
  return undefined;
}

/**
 * Opens a file, block device or folder in a location, to look at it: nothing can be read through the handle.
 * @returns undefined when there is none
 * @throws {StorageError} `permission-denied` for what is elsewhere, be it through a link
 */
export function openFile(path: string, locations: Locations): Promise<FileHandle | undefined> {
  return openAt(path, fileRight(locations), locations);
}

/** The same, where locations' folders may be looked at too. */
export function openFileOrFolder(
  path: string,
  locations: Locations,
): Promise<FileHandle | undefined> {
  return openAt(path, folderRight(locations), locations);
}

/** A name for a new file in a folder that is held open, whatever happens to the path to it. */
export class Place {
  readonly #folder: FileHandle;
  readonly path: string;

  private constructor(folder: FileHandle, path: string) {
    this.#folder = folder;
    this.path = path;
  }

  /** @throws {StorageError} `permission-denied` outside the locations; `not-found` without its folder */
  static async open(path: string, locations: Locations): Promise<Place> {
    checkPath(path, (text) => locations.hasFile(text), locations);
    let folder: FileHandle;
    try {
      folder = await open(dirname(path), O_PATH | constants.O_DIRECTORY);
    } catch (error) {
      if (!isAbsent(error)) throw unreadable(path, error);
      throw new StorageError(
        "not-found",
        `there is no folder ${dirname(path)}; make it first, or choose another path`,
        { path },
      );
    }
    try {
      const real = await whereIs(folder);
      if (real === undefined || !(await locations.hasRealFile(join(real, basename(path)))))
        throw outside(path, locations, `: its folder is a link, or below one, to ${real}`);
      return new Place(folder, path);
    } catch (error) {
      await folder.close();
      throw error;
    }
  }

  /** A file of the folder, for this process's own calls. */
  own(name: string = basename(this.path)): string {
    return `/proc/self/fd/${this.#folder.fd}/${name}`;
  }

  /** The same for commands, which have another `self`. */
  foreign(name: string): string {
    return `/proc/${process.pid}/fd/${this.#folder.fd}/${name}`;
  }

  get folder(): string {
    return `/proc/self/fd/${this.#folder.fd}`;
  }

  close(): Promise<void> {
    return this.#folder.close();
  }
}
