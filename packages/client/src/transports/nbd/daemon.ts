/**
 * The way of a volume that comes by NBD to this host, where the kernel has no NBD: a storage daemon is the client,
 * and shows the disk as a file by FUSE. The daemon waits when the server is away, and goes on when it is back,
 * so that a restart of the server is a pause and no error. All of it stands in one folder of this volume's.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { mkdir, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../executor/exec.js";
import type { ExecutorContext } from "../../executor/executor.js";
import { readMountTable } from "../../executor/mount-table.js";
import type { Deadline } from "../transport.js";
import type { Credentials, NbdDoor } from "./door.js";
import { tellDaemon } from "./monitor.js";

const PROGRAM = "qemu-storage-daemon";
/** As long as requests over iSCSI wait. */
const RECONNECT_SECONDS = 120;
const END_MS = 10_000;
const NODE = "remote";
/** A path of a Unix socket has at most 107 bytes. @see unix(7) */
const MAX_FOLDER_BYTES = 107 - "/qmp.sock".length;

export interface DaemonPlace {
  readonly folder: string;
  /** The disk, once the daemon shows it. */
  readonly disk: string;
}

/** Where the ways of all volumes stand. */
export function nbdFolderOf(libFolder: string): string {
  return join(libFolder, "nbd-client");
}

export function placeOfExport(libFolder: string, name: string): DaemonPlace {
  const folder = join(
    nbdFolderOf(libFolder),
    createHash("sha256").update(name).digest("hex").slice(0, 16),
  );
  return { folder, disk: join(folder, "disk") };
}

/** The places that are there, whoever made them. */
export async function nbdPlaces(libFolder: string): Promise<readonly DaemonPlace[]> {
  const names = await readdir(nbdFolderOf(libFolder)).catch(() => []);
  return names
    .filter((name) => /^[\da-f]{16}$/.test(name))
    .map((name) => join(nbdFolderOf(libFolder), name))
    .map((folder) => ({ folder, disk: join(folder, "disk") }));
}

/** The daemon of a place while it lives. Numbers of processes come again, so its arguments count. */
export function pidAt({ folder }: DaemonPlace): number | undefined {
  try {
    const pid = Number.parseInt(readFileSync(join(folder, "pid"), "latin1"), 10);
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`${folder}/pid`) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the file of a place is a disk now: FUSE is over it, and its daemon lives. */
export async function isShown(place: DaemonPlace): Promise<boolean> {
  return pidAt(place) !== undefined && (await mountsOver(place)) > 0;
}

/** Without a look at the file itself, which would wait for its daemon. */
async function mountsOver({ disk }: DaemonPlace): Promise<number> {
  return (await readMountTable()).filter(({ mountPoint }) => mountPoint === disk).length;
}

/** Takes the daemon and what it shows away. What is not there is fine. */
export async function removeDaemon(
  { exec }: ExecutorContext,
  place: DaemonPlace,
  deadline: Deadline,
): Promise<void> {
  await endProcess(place);
  // A daemon that was killed has left its mount, and mounts stack.
  for (let left = await mountsOver(place); left > 0; left -= 1)
    await exec("umount", ["--lazy", "--no-canonicalize", "--", place.disk], {
      signal: deadline.signal,
      timeoutMs: deadline.left(15_000),
    });
  await rm(place.folder, { recursive: true, force: true });
}

async function endProcess(place: DaemonPlace): Promise<void> {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    const pid = pidAt(place);
    if (pid === undefined) return;
    process.kill(pid, signal);
    const end = performance.now() + END_MS;
    while (pidAt(place) !== undefined && performance.now() < end) await sleep(10);
  }
  if (pidAt(place) === undefined) return;
  throw new StorageError(
    "failed-precondition",
    `the storage daemon ${pidAt(place)} of ${place.folder} does not end; look at what it waits for (/proc/PID/stack)`,
    { folder: place.folder },
  );
}

/** A value within a list of options. */
function plain(value: string): string {
  return value.replaceAll(",", ",,");
}

function argumentsFor(
  { folder, disk }: DaemonPlace,
  door: NbdDoor,
  hasTls: boolean,
  reconnectSeconds: number,
): readonly string[] {
  const tls = `tls-creds-x509,id=tls0,endpoint=client,dir=${plain(join(folder, "tls"))},verify-peer=on`;
  const node = [
    `driver=nbd,node-name=${NODE},export=${door.export},discard=unmap`,
    `server.type=inet,server.host=${plain(door.host)},server.port=${door.port}`,
    `reconnect-delay=${reconnectSeconds}`,
    ...(door.isReadOnly ? ["read-only=on"] : []),
    ...(hasTls ? ["tls-creds=tls0"] : []),
  ];
  const write = door.isReadOnly ? "off" : "on";
  return [
    "--pidfile",
    join(folder, "pid"),
    "--daemonize",
    "--chardev",
    `socket,id=qmp,path=${plain(join(folder, "qmp.sock"))},server=on,wait=off`,
    "--monitor",
    "chardev=qmp",
    ...(hasTls ? ["--object", tls] : []),
    "--blockdev",
    node.join(","),
    "--export",
    `type=fuse,id=disk,node-name=${NODE},mountpoint=${plain(disk)},writable=${write},growable=off,allow-other=off`,
  ];
}

function reconnectOf({ config }: ExecutorContext): number {
  const value = Number(config.find("nbd.reconnectSeconds")?.value);
  return Number.isInteger(value) && value > 0 ? value : RECONNECT_SECONDS;
}

/** Shows the export as the file of its place; to be called when nothing is there. */
export async function showDisk(
  context: ExecutorContext,
  place: DaemonPlace,
  door: NbdDoor,
  credentials: Credentials | undefined,
  deadline: Deadline,
): Promise<void> {
  const { folder, disk } = place;
  if (Buffer.byteLength(folder) > MAX_FOLDER_BYTES)
    throw new StorageError(
      "failed-precondition",
      `sockets cannot be made in ${folder}: its path has more than ${MAX_FOLDER_BYTES} bytes; use a shorter folder for this client's state`,
      { folder },
    );
  await mkdir(join(folder, "tls"), { recursive: true, mode: 0o700 });
  // QEMU looks for files of these names; the key itself stays where it is.
  for (const [name, file] of Object.entries(credentials ?? {}))
    await symlink(file, join(folder, "tls", name));
  await writeFile(disk, "", { mode: 0o600 });
  const args = argumentsFor(place, door, credentials !== undefined, reconnectOf(context));
  const limits = { signal: deadline.signal, timeoutMs: deadline.left(30_000) };
  await context.exec(PROGRAM, args, limits).catch((error: unknown) => {
    throw refused(error, door);
  });
}

/** What the daemon says when it does not get in, in words that say what to do. */
function refused(error: unknown, door: NbdDoor): unknown {
  if (!(error instanceof CommandError)) return error;
  const where = `${door.host}:${door.port}`;
  const about = { export: door.export, server: where, ...error.data };
  if (/not installed/.test(error.message))
    return new StorageError(
      "failed-precondition",
      `${PROGRAM} is not installed on this host, which needs it to reach volumes by NBD; install Debian's qemu-system-common`,
      about,
      { cause: error },
    );
  const says = (code: "unavailable" | "permission-denied" | "failed-precondition", text: string) =>
    new StorageError(code, `the NBD server ${where} ${text}`, about, { cause: error });
  const { stderr } = error;
  if (/Failed to mount FUSE|\/dev\/fuse/.test(stderr))
    return new StorageError(
      "failed-precondition",
      `this host cannot show the disk ${door.export}: FUSE does not work here; load the module fuse and run as root`,
      about,
      { cause: error },
    );
  if (/Invalid parameter 'fuse'|does not accept value 'fuse'/.test(stderr))
    return new StorageError(
      "unimplemented",
      `the ${PROGRAM} of this host was built without FUSE; install one with it, or load the kernel's nbd module`,
      about,
      { cause: error },
    );
  if (/export .* not present|Requested export not available/.test(stderr))
    return says(
      "permission-denied",
      `has no export ${door.export} for this host: it was given to another one since, or this host is not known to it by its certificate or address`,
    );
  if (/[Cc]onnection refused|[Nn]o route|unreachable|timed out|Failed to connect/.test(stderr))
    return says("unavailable", "does not answer; does it run, and does the network lead there?");
  if (/TLS|certificate|handshake/i.test(stderr))
    return says(
      "permission-denied",
      "and this host do not agree on TLS; look at nbd.certFile, nbd.keyFile and nbd.trustedCertsFile, and whether the server's certificate names its address",
    );
  return error;
}

/** Gives the file the size that the export has now: the daemon asks for none that differs, and looks. */
export async function refitDisk({ folder, disk }: DaemonPlace): Promise<void> {
  const socket = join(folder, "qmp.sock");
  const { size } = await stat(disk);
  await tellDaemon(socket, "block_resize", { "node-name": NODE, size });
}
