/** The Unix socket of a plugin: nobody but its owner connects, and nothing of another's is removed. */
import { chmod, lstat, mkdir, unlink } from "node:fs/promises";
import { connect } from "node:net";
import type { Server } from "node:net";
import { dirname } from "node:path";
import { StorageError } from "@libstorage/model";

/** `sun_path` of unix(7), with its final zero. */
const MAX_PATH_BYTES = 107;

export const SOCKET_MODE = 0o600;

function refused(path: string, why: string): StorageError {
  return new StorageError("failed-precondition", `cannot listen on ${path}: ${why}`, { path });
}

/**
 * Whoever may write in the folder can put another socket in the place of ours. Folders above are not looked at:
 * who may write in those can put another folder in the place, but to the plugin that is only a socket that is
 * gone, and clients that trust such a place have to see to it that it is their own, as a pod's volume is.
 */
async function checkFolder(folder: string, path: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o755 });
  const { uid, mode } = await lstat(folder);
  const own = process.geteuid?.() ?? uid;
  if (uid !== 0 && uid !== own)
    throw refused(
      path,
      `its folder ${folder} belongs to the user ${uid}; chown it, or choose another`,
    );
  if ((mode & 0o022) !== 0)
    throw refused(
      path,
      `others may write in its folder ${folder}; run chmod go-w ${folder}, or name a folder in it, which is made`,
    );
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

/**
 * Removes what a dead plugin left at the path: only a socket, of this user, that nobody answers on.
 * @throws {StorageError} `failed-precondition` when the path is taken; `invalid-argument` when it is too long
 */
async function claim(path: string): Promise<void> {
  if (Buffer.byteLength(path) > MAX_PATH_BYTES)
    throw new StorageError(
      "invalid-argument",
      `${path} is longer than the ${MAX_PATH_BYTES} bytes that a socket's path may have`,
      { path },
    );
  await checkFolder(dirname(path), path);
  const there = await lstat(path).catch(() => undefined);
  if (there === undefined) return;
  if (!there.isSocket()) throw refused(path, "there is something that is no socket; remove it");
  const own = process.geteuid?.();
  if (own !== undefined && there.uid !== own)
    throw refused(path, `there is a socket of the user ${there.uid}; remove it`);
  if (await answers(path))
    throw refused(path, "another process answers there: stop it, or choose another path");
  await unlink(path);
}

/** Listens at a path, with mode 0600 from the file's first moment. @throws {StorageError} */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  await claim(path);
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error): void => reject(refused(path, error.message));
    server.once("error", failed);
    server.once("listening", () => {
      server.off("error", failed);
      resolve();
    });
    // The file is made within `listen`.
    const before = process.umask(0o777 & ~SOCKET_MODE);
    try {
      server.listen(path);
    } finally {
      process.umask(before);
    }
  });
  // A default access list of the folder may have given more.
  await chmod(path, SOCKET_MODE);
}
