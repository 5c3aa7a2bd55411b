/**
 * The storage daemon of a volume that comes by NBD to this host. It is the server's client: it does TLS, waits when the
 * server is away, and goes on when it is back, so that a restart of the server is a pause and no error. How this host's
 * kernel gets the disk from it is the affair of a way.
 */
import { readFileSync } from "node:fs";
import { mkdir, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../executor/exec.js";
import type { ExecutorContext } from "../../executor/executor.js";
import { readMountTable } from "../../executor/mount-table.js";
import type { Deadline } from "../transport.js";
import type { Credentials, NbdDoor } from "./door.js";
import { tellDaemon } from "./monitor.js";
import type { Place } from "./place.js";
import type { Way } from "./way.js";

const PROGRAM = "qemu-storage-daemon";
/** As long as requests over iSCSI wait. */
const RECONNECT_SECONDS = 120;
const END_MS = 10_000;
/** The disk, within the daemon. */
export const NODE = "remote";
const TLS = "tls0";
/** A path of a Unix socket has at most 107 bytes. @see unix(7) */
const MAX_FOLDER_BYTES = 107 - "/qmp.sock".length;

interface Process {
  readonly pid: number;
  readonly args: readonly string[];
}

function processAt({ folder }: Place): Process | undefined {
  try {
    const pid = Number.parseInt(readFileSync(join(folder, "pid"), "latin1"), 10);
    const args = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    return args.includes(join(folder, "pid")) ? { pid, args } : undefined;
  } catch {
    return undefined;
  }
}

/** The daemon of a place while it lives. Numbers of processes come again, so its arguments count. */
export function pidAt(place: Place): number | undefined {
  return processAt(place)?.pid;
}

function serverOption({ host, port }: NbdDoor): string {
  return `server.type=inet,server.host=${plain(host)},server.port=${port}`;
}

/**
 * Servers that are clones of each other give one name to two disks.
 * @throws {StorageError} `failed-precondition` when the place's daemon is connected to another server
 */
export function checkServerAt(place: Place, door: NbdDoor): void {
  const found = processAt(place);
  if (found === undefined || found.args.some((one) => one.includes(`,${serverOption(door)},`)))
    return;
  throw new StorageError(
    "failed-precondition",
    `the disk ${door.export} of the NBD server ${door.host}:${door.port} is not touched: a disk of this name, which another server has, is connected here (process ${found.pid}); unmount and detach that volume first. Two servers that are clones of each other should not be: see docs/exporters/nbd.md`,
    { export: door.export, pid: found.pid },
  );
}

/** How often FUSE is over the file of a place; without a look at the file itself, which would wait for its daemon. */
export async function mountsOver({ disk }: Place): Promise<number> {
  return (await readMountTable()).filter(({ mountPoint }) => mountPoint === disk).length;
}

/** Takes the daemon and what it shows away. What is not there is fine. */
export async function removeDaemon(
  { exec }: ExecutorContext,
  place: Place,
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

async function endProcess(place: Place): Promise<void> {
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
export function plain(value: string): string {
  return value.replaceAll(",", ",,");
}

function argumentsFor(
  { folder, monitor }: Place,
  door: NbdDoor,
  hasTls: boolean,
  reconnectSeconds: number,
): readonly string[] {
  const tls = `tls-creds-x509,id=${TLS},endpoint=client,dir=${plain(join(folder, "tls"))},verify-peer=on`;
  const node = [
    `driver=nbd,node-name=${NODE},export=${door.export},discard=unmap`,
    serverOption(door),
    `reconnect-delay=${reconnectSeconds}`,
    ...(door.isReadOnly ? ["read-only=on"] : []),
    ...(hasTls ? [`tls-creds=${TLS}`] : []),
  ];
  return [
    "--pidfile",
    join(folder, "pid"),
    "--daemonize",
    "--chardev",
    `socket,id=qmp,path=${plain(monitor)},server=on,wait=off`,
    "--monitor",
    "chardev=qmp",
    ...(hasTls ? ["--object", tls] : []),
    "--blockdev",
    node.join(","),
  ];
}

function reconnectOf({ config }: ExecutorContext): number {
  const value = Number(config.find("nbd.reconnectSeconds")?.value);
  return Number.isInteger(value) && value > 0 ? value : RECONNECT_SECONDS;
}

/** Starts the daemon of a place, connected and showing the disk; to be called when nothing is there. */
export async function startDaemon(
  context: ExecutorContext,
  place: Place,
  door: NbdDoor,
  way: Way,
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
  const hasTls = credentials !== undefined;
  const args = [
    ...argumentsFor(place, door, hasTls, reconnectOf(context)),
    ...way.argumentsFor(place, door),
  ];
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

const LOOK = "look";
const Nodes = v.array(
  v.object({ "node-name": v.string(), image: v.object({ "virtual-size": v.number() }) }),
);

/** The size that the export has now, in bytes; asked by a second connection, as the first one does not hear of it. */
export async function sizeOfExport({ monitor }: Place, door: NbdDoor): Promise<number> {
  const remove = () => tellDaemon(monitor, "blockdev-del", { "node-name": LOOK });
  // One that was killed here has left it.
  await remove().catch(() => {});
  await tellDaemon(monitor, "blockdev-add", {
    driver: "nbd",
    "node-name": LOOK,
    export: door.export,
    server: { type: "inet", host: door.host, port: door.port },
    "read-only": true,
    ...(door.hasTls && { "tls-creds": TLS }),
  });
  try {
    const answer = await tellDaemon(monitor, "query-named-block-nodes", { flat: true });
    const node = v.parse(Nodes, answer).find((one) => one["node-name"] === LOOK);
    return node?.image["virtual-size"] ?? 0;
  } finally {
    await remove();
  }
}
