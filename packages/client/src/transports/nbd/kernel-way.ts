/**
 * The way for a kernel with NBD: its client is connected to a Unix socket of the daemon. The daemon stays between the
 * kernel and the server, because the kernel's client alone cannot wait for a server that restarts: nbd-client 3.24
 * never tells it how long (NBD_ATTR_DEAD_CONN_TIMEOUT), so it fails every request at once, and `-persist` gives up
 * with the device, since NBD_DO_IT of today's kernels ends without an error. Its TLS would be a process in between, too.
 *
 * The kernel chooses the device, so that nobody else's can be hit: over ioctl (`-nonetlink`) a second client at one
 * device throws the first one out. It keeps the number of the process that connected it, also when that has
 * ended, and start-stop-daemon has written the same number down before; so a device is known by what the kernel says.
 */
import { readFileSync } from "node:fs";
import { access, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../executor/exec.js";
import { placesOf } from "../../executor/executor.js";
import type { ExecutorContext } from "../../executor/executor.js";
import { sysEntries, sysText } from "../kernel.js";
import type { Deadline } from "../transport.js";
import { NODE, plain, sizeOfExport } from "./daemon.js";
import type { NbdDoor } from "./door.js";
import type { Place } from "./place.js";
import { WayClosed } from "./way.js";
import type { Way } from "./way.js";

/** Where Debian has them; start-stop-daemon wants the whole path. */
const PROGRAMS = { client: "/sbin/nbd-client", starter: "/sbin/start-stop-daemon" };
const EXPORT = "disk";
const FREE_MS = 20_000;

/** What nbd-client says of the device that the kernel has chosen. */
export function parseConnected(stdout: string): string | undefined {
  return /^Connected \/dev\/(nbd\d+)$/m.exec(stdout)?.[1];
}

function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** A number of a process says nothing after a restart of the host. */
function clientFile({ folder }: Place): string {
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
  return join(folder, `client.${boot}`);
}

export class KernelWay implements Way {
  readonly name = "kernel";
  readonly #context: ExecutorContext;
  readonly #programs: typeof PROGRAMS;

  constructor(context: ExecutorContext, programs = PROGRAMS) {
    this.#context = context;
    this.#programs = programs;
  }

  async missing(deadline: Deadline): Promise<string | undefined> {
    const { client, starter } = this.#programs;
    for (const [path, name] of [
      [client, "nbd-client"],
      [starter, "dpkg"],
    ] as const)
      if (!(await isThere(path)))
        return `${path} is not on this host; install Debian's package ${name}`;
    const { sys, dev } = placesOf(this.#context);
    const isLoaded = () => isThere(join(sys, "module/nbd"));
    if (!(await isLoaded()))
      await this.#context
        .exec("modprobe", ["--quiet", "nbd"], this.#within(deadline, 15_000))
        .catch((error: unknown) => {
          if (!(error instanceof CommandError)) throw error;
        });
    if (!(await isLoaded()))
      return "this kernel has no NBD (modprobe nbd); install the module, or set nbd.client to daemon";
    if (!(await isThere(join(dev, "nbd0"))))
      return "/dev/nbd0 is not here; is this a container without the host's devices?";
    return undefined;
  }

  argumentsFor({ socket }: Place, { isReadOnly }: NbdDoor): readonly string[] {
    const write = isReadOnly ? "off" : "on";
    return [
      "--nbd-server",
      `addr.type=unix,addr.path=${plain(socket)}`,
      "--export",
      `type=nbd,id=${EXPORT},node-name=${NODE},name=${EXPORT},writable=${write}`,
    ];
  }

  isOpen({ socket }: Place): Promise<boolean> {
    return isThere(socket);
  }

  async devices(place: Place): Promise<readonly string[]> {
    const pid = await sysText(clientFile(place));
    if (!/^\d+$/.test(pid)) return [];
    const folder = join(placesOf(this.#context).sys, "class/block");
    const names = (await sysEntries(folder)).filter((name) => /^nbd\d+$/.test(name));
    const pids = await Promise.all(names.map((name) => sysText(join(folder, name, "pid"))));
    return names.filter((_, index) => pids[index] === pid);
  }

  async up(place: Place, door: NbdDoor, deadline: Deadline): Promise<void> {
    const file = clientFile(place);
    await rm(file, { force: true });
    const { client, starter } = this.#programs;
    const start = ["--start", "--quiet", "--make-pidfile", "--pidfile", file, "--startas", client];
    const args = [...start, "--", "-unix", place.socket, "-name", EXPORT];
    const { exec } = this.#context;
    const said = await exec(starter, args, this.#within(deadline, 30_000)).catch(
      (error: unknown) => {
        if (!(error instanceof CommandError) || error.exitCode < 0) throw error;
        throw closed(door, error.stderr.trim().replaceAll(/\s*\n\s*/g, " "), error);
      },
    );
    const told = parseConnected(said.stdout);
    const found = await this.devices(place);
    if (told !== undefined && found.includes(told)) return;
    // In a container the kernel's numbers of processes are others. That device is nobody else's.
    if (told !== undefined) await this.down(told, deadline);
    throw closed(
      door,
      told === undefined
        ? `nbd-client named no device, but said "${said.stdout.trim()}"`
        : `/dev/${told} cannot be known again: are the numbers of processes here not the kernel's, as in a container?`,
    );
  }

  async down(device: string, deadline: Deadline): Promise<void> {
    const { exec } = this.#context;
    await exec(this.#programs.client, ["-d", `/dev/${device}`], this.#within(deadline, 30_000));
    const folder = join(placesOf(this.#context).sys, "class/block", device);
    const isFree = async () =>
      (await sysText(join(folder, "pid"))) === "" && (await sysText(join(folder, "size"))) === "0";
    const end = performance.now() + deadline.left(FREE_MS);
    while (!(await isFree())) {
      if (deadline.signal.aborted)
        throw new StorageError("cancelled", `waiting for /dev/${device} to go was ended`);
      if (performance.now() > end)
        throw new StorageError(
          "failed-precondition",
          `/dev/${device} was disconnected, and the kernel does not let it go: a program has it open; end it (fuser -v /dev/${device}) and try again`,
          { device: `/dev/${device}` },
        );
      await sleep(20);
    }
  }

  async grow(place: Place, door: NbdDoor, device: string): Promise<boolean> {
    const { sys } = placesOf(this.#context);
    const sectors = Number(await sysText(join(sys, "class/block", device, "size")));
    return sectors * 512 === (await sizeOfExport(place, door));
  }

  #within(deadline: Deadline, mostMs: number): { signal: AbortSignal; timeoutMs: number } {
    return { signal: deadline.signal, timeoutMs: deadline.left(mostMs) };
  }
}

function closed(door: NbdDoor, why: string, cause?: CommandError): WayClosed {
  return new WayClosed(
    "failed-precondition",
    `the kernel's NBD client does not take the disk ${door.export}: ${why}; look at dmesg, or set nbd.client to daemon`,
    { export: door.export, ...cause?.data },
    { cause },
  );
}
