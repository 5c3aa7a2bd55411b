/** Two servers on one folder would give the same ids twice: the second one refuses. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { execa, ExecaError } from "execa";
import { StorageError } from "@libstorage/model";

/** The file that is locked. It stays behind, empty, and means nothing without its lock. */
export const LOCK_FILE = ".libstorage.lock";

/** flock(1) exits so when another open file has the lock. */
const EXIT_HELD = 1;

/**
 * Takes a folder's lock until the handle is closed or the process ends, however it ends. The lock belongs
 * to the open file, which flock(1) only inherits, so it outlives that command and no id of a dead process
 * can hold it.
 * @throws {StorageError} `failed-precondition` when another server has it, `unavailable` when it cannot be
 * told
 */
export async function lockFolder(folder: string): Promise<FileHandle> {
  const { O_RDONLY, O_RDWR } = constants;
  try {
    return await take(folder, O_RDONLY);
  } catch (error) {
    // Only over NFS a lock needs a file that is open for writing; elsewhere such a file would keep the file
    // system from being made read-only.
    if (!(error instanceof ExecaError) || error.exitCode === EXIT_HELD || error.code === "ENOENT")
      throw refusal(folder, error);
  }
  try {
    return await take(folder, O_RDWR);
  } catch (error) {
    throw refusal(folder, error);
  }
}

/** Opens the lock file and locks it. */
async function take(folder: string, access: number): Promise<FileHandle> {
  const handle = await openLock(folder, access);
  try {
    await execa("flock", ["--exclusive", "--nonblock", "0"], {
      // Any descriptor may be passed on; the type names only the standard ones.
      stdin: handle.fd as 0,
      stdout: "ignore",
      env: { LC_ALL: "C" },
      timeout: 10_000,
    });
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The lock file; on a read-only file system, where none can be made, the folder itself. */
async function openLock(folder: string, access: number): Promise<FileHandle> {
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_CREAT } = constants;
  try {
    return await open(join(folder, LOCK_FILE), access | O_CREAT | O_NOFOLLOW, 0o600);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EROFS") throw error;
    return open(folder, O_RDONLY | O_DIRECTORY);
  }
}

function refusal(folder: string, error: unknown): StorageError {
  if (error instanceof ExecaError && error.exitCode === EXIT_HELD)
    return new StorageError(
      "failed-precondition",
      `${folder} is in use by another libstorage server; stop that one, or give this one another folder`,
      { folder },
    );
  const why =
    error instanceof ExecaError && error.code === "ENOENT"
      ? "flock (util-linux) is not installed"
      : error instanceof Error
        ? error.message
        : String(error);
  return new StorageError(
    "unavailable",
    `cannot lock ${folder}: ${why}`,
    { folder },
    { cause: error },
  );
}
