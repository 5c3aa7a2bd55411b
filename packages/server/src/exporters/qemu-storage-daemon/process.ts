/** The process of a storage daemon, found again by the pid file in its folder. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";

const PROGRAM = "qemu-storage-daemon";
const END_MS = 5_000;

/** A path of a Unix socket has at most 107 bytes, and this is the longest name in the folder. */
const MAX_FOLDER_BYTES = 107 - "/01234567.sock".length;

/** Its sockets are files, so it needs no network. Only root can leave it. */
const WITHOUT_NETWORK = ["unshare", "--net", "--"] as const;

/** Where it is driven. */
export function monitorIn(folder: string): string {
  return join(folder, "qmp.sock");
}

/** The process of a folder's daemon while it lives. @see proc(5) */
export function pidIn(folder: string): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(join(folder, "pid"), "latin1"), 10);
    // Numbers of processes come again. One that has ended and waits for its parent has no arguments.
    const isOurs = readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`${folder}/pid`);
    return isOurs ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** Kills a folder's daemon and waits for its end. @throws {StorageError} when it does not end */
export async function killIn(folder: string): Promise<void> {
  const pid = pidIn(folder);
  if (pid === undefined) return;
  process.kill(pid, "SIGKILL");
  await goneFrom(folder, pid);
}

/** @throws {StorageError} `failed-precondition` when it does not end in time */
export async function goneFrom(folder: string, pid: number): Promise<void> {
  const end = Date.now() + END_MS;
  while (pidIn(folder) !== undefined) {
    if (Date.now() > end)
      throw new StorageError(
        "failed-precondition",
        `the storage daemon ${pid} does not end, so it may still write; look at what it waits for (/proc/${pid}/stack), or restart the host`,
        { pid },
      );
    await sleep(5);
  }
}

/** As whom and with how much a daemon runs. */
export interface Confinement {
  readonly user?: string | undefined;
  readonly memoryBytes?: number | undefined;
}

/** @throws {StorageError} `failed-precondition` for a folder in which no socket fits */
export function checkFolder(folder: string, key: string): void {
  if (Buffer.byteLength(folder) <= MAX_FOLDER_BYTES) return;
  throw new StorageError(
    "failed-precondition",
    `sockets cannot be made in ${folder}: its path has more than ${MAX_FOLDER_BYTES} bytes; set a shorter "${key}"`,
    { folder },
  );
}

/** The way down to the daemon: no core dumps of someone's disk, limits, no network, another user. */
function wrapped({ user, memoryBytes }: Confinement): readonly string[] {
  const isRoot = process.getuid?.() === 0;
  const memory = memoryBytes === undefined ? [] : [`--as=${memoryBytes}`];
  const as = ["setpriv", `--reuid=${user}`, `--regid=${user}`, "--init-groups", "--no-new-privs"];
  return [
    "--core=0",
    "--nofile=4096",
    ...memory,
    "--",
    ...(isRoot ? WITHOUT_NETWORK : []),
    ...(user === undefined ? [] : [...as, "--"]),
    PROGRAM,
  ];
}

/** Starts a daemon in a new folder. @throws {StorageError} `failed-precondition` */
export async function startIn(
  folder: string,
  confinement: Confinement,
  context: OpContext,
): Promise<void> {
  checkFolder(folder, "daemonFolder");
  // A socket takes the place of whatever has its name, so the folder is new and the daemon's alone.
  await context.files.removeTree(folder);
  await context.files.makeFolder(folder, 0o700);
  const { user } = confinement;
  if (user !== undefined) await context.exec("chown", ["--", user, folder], context.signal);
  const args = [
    ...wrapped(confinement),
    "--chardev",
    `socket,id=qmp,path=${monitorIn(folder).replaceAll(",", ",,")},server=on,wait=off`,
    "--monitor",
    "chardev=qmp",
    "--pidfile",
    join(folder, "pid"),
    "--daemonize",
  ];
  try {
    await context.exec("prlimit", args, context.signal);
  } catch (error) {
    const isMissing =
      error instanceof CommandError && /No such file or directory/.test(error.stderr);
    if (!isMissing) throw error;
    throw new StorageError(
      "failed-precondition",
      `${PROGRAM} is not installed on this host; install Debian's qemu-system-common`,
      error.data,
      { cause: error },
    );
  }
}

/** Ends the daemon of a folder, and removes the folder. */
export async function stopIn(folder: string, context: OpContext): Promise<void> {
  await killIn(folder);
  await context.files.removeTree(folder);
}
