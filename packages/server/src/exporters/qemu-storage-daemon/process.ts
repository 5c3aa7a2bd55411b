/** The process of a storage daemon, found again by the pid file in its folder. */
import { readFileSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
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

/** As whom a process runs. @see proc(5), status */
export function ownerOf(pid: number): { readonly uid: number; readonly gid: number } {
  const text = readFileSync(`/proc/${pid}/status`, "utf8");
  const effective = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+\\d+\\s+(\\d+)`, "m").exec(text)?.[1]);
  return { uid: effective("Uid"), gid: effective("Gid") };
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

interface User {
  readonly uid: string;
  readonly gid: string;
}

/** Its group need not have its name. @throws {StorageError} when there is none of this name */
async function userOf(name: string, { exec, signal }: OpContext): Promise<User> {
  const ask = async (what: string): Promise<string> =>
    (await exec("id", [what, "--", name], signal)).stdout.trim();
  return { uid: await ask("-u"), gid: await ask("-g") };
}

/** Lets a user to a folder and what is in it; of what else is on the way there no names can be listed. */
async function give(
  { uid, gid }: User,
  folder: string,
  { exec, signal }: OpContext,
): Promise<void> {
  await exec("chown", ["--recursive", "--no-dereference", "--", `${uid}:${gid}`, folder], signal);
  await exec("chmod", ["o+x", "--", dirname(folder), dirname(dirname(folder))], signal);
}

/** Lets a daemon that runs as another user to an image that it shall open, with all of its layers. */
export async function giveImage(pid: number, folder: string, context: OpContext): Promise<void> {
  const { uid, gid } = ownerOf(pid);
  if (uid === process.geteuid?.()) return;
  await give({ uid: String(uid), gid: String(gid) }, folder, context);
}

/** The way down to the daemon: no core dumps of someone's disk, limits, no network, another user. */
function wrapped({ memoryBytes }: Confinement, user: User | undefined): readonly string[] {
  const isRoot = process.getuid?.() === 0;
  const memory = memoryBytes === undefined ? [] : [`--as=${memoryBytes}`];
  const as = [
    "setpriv",
    `--reuid=${user?.uid}`,
    `--regid=${user?.gid}`,
    "--init-groups",
    "--no-new-privs",
  ];
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

/** Starts a daemon in a new folder; neither is left when that fails. @throws {StorageError} `failed-precondition` */
export async function startIn(
  folder: string,
  confinement: Confinement,
  context: OpContext,
): Promise<void> {
  checkFolder(folder, "daemonFolder");
  // A socket takes the place of whatever has its name, so the folder is new and the daemon's alone.
  await context.files.removeTree(folder);
  try {
    await context.files.makeFolder(folder, 0o700);
    await startProcess(folder, confinement, context);
  } catch (error) {
    // It may run all the same, as when the answer came too late.
    await clearIn(folder, context);
    throw error;
  }
}

async function startProcess(
  folder: string,
  confinement: Confinement,
  context: OpContext,
): Promise<void> {
  const user = confinement.user === undefined ? undefined : await userOf(confinement.user, context);
  if (user !== undefined) await give(user, folder, context);
  const args = [
    ...wrapped(confinement, user),
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

/** Whether a process has a file open: by the file itself, which may have got another name. @see proc(5) */
export function hasOpen(pid: number, path: string): boolean {
  const { dev, ino } = statSync(path);
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).some((fd) => {
    const stats = statSync(join(folder, fd), { throwIfNoEntry: false });
    return stats?.dev === dev && stats.ino === ino;
  });
}

/** Ends the daemon of a folder, and removes the folder. */
export async function stopIn(folder: string, context: OpContext): Promise<void> {
  await killIn(folder);
  await context.files.removeTree(folder);
}

/** As `stopIn`, after a failure, which counts for more than what stays: the next start in the folder removes it. */
export async function clearIn(folder: string, context: OpContext): Promise<void> {
  await stopIn(folder, context).catch((error: unknown) =>
    context.log.warn({ error, folder }, "remains of a storage daemon"),
  );
}
