/** Makes sure that a Unix socket may be opened at a path, and removes what a dead server left there. */
import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { StorageError } from "@libstorage/model";

/** `sun_path` of unix(7), with its final zero. */
const MAX_PATH_BYTES = 107;

/**
 * Only a socket that nobody answers on is removed, never another kind of file.
 * @throws {StorageError} `failed-precondition` when the path is taken; `invalid-argument` when it is too long
 */
export async function claimSocketPath(path: string, endpoint: string): Promise<void> {
  const data = { endpoint, path };
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw new StorageError(
      "invalid-argument",
      `endpoint ${endpoint}: ${path} is longer than the ${MAX_PATH_BYTES} bytes that a socket's path may have`,
      data,
    );
  const there = await lstat(path).catch(() => undefined);
  if (there === undefined) return;
  if (!there.isSocket())
    throw new StorageError(
      "failed-precondition",
      `endpoint ${endpoint}: ${path} exists and is no socket; it is left alone: remove it, or choose another path`,
      data,
    );
  if (await answers(path))
    throw new StorageError(
      "failed-precondition",
      `endpoint ${endpoint}: another server answers on ${path}: stop it, or choose another path`,
      data,
    );
  await unlink(path);
}

/** Whether anybody listens. A socket that cannot be tried counts as alive. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const done = (isAlive: boolean): void => {
      socket.destroy();
      resolve(isAlive);
    };
    socket.setTimeout(2_000, () => done(true));
    socket.once("connect", () => done(true));
    socket.once("error", (error: NodeJS.ErrnoException) => done(error.code !== "ECONNREFUSED"));
  });
}
