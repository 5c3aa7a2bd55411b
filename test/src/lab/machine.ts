/**
 * A machine of the lab: QEMU without virtualisation (`tcg`), a stock Debian kernel, the built checkout read-only
 * at `/project`. Its life: `startMachine` → commands → `kill`, `restart`, `pause` as wished → `remove`.
 * QEMU dies with the process that started it.
 */
import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { AgentChannel } from "./channel.js";
import type { CommandOptions, CommandResult, LabProcess } from "./channel.js";
import { labImage, projectTree } from "./image.js";
import { within } from "./limit.js";
import { Qmp } from "./qmp.js";

export interface MachineOptions {
  /** Its host name. */
  readonly name: string;
  /** Default 1024. */
  readonly memoryMiB?: number;
  /** Default 2. */
  readonly cpus?: number;
  /** Empty disks, `/dev/vdc` and on, which outlive a `kill` as the root disk does. */
  readonly diskMiB?: readonly number[];
  /** Its card, from `makeNetwork`. */
  readonly card?: Card;
  /** Disks, after all others, that a process of this host serves over vhost-user-blk at these sockets. */
  readonly vhostSockets?: readonly string[];
}

export interface Card {
  /** For `eth0`, such as `10.99.0.1/24`. */
  readonly address: string;
  readonly mac: string;
  /** What QEMU gets, with the end of the link called `wire`. */
  readonly arguments: readonly string[];
  /** Called whenever QEMU has started, before the machine runs. */
  readonly started: (qmp: Qmp) => Promise<void>;
}

/** The image boots in 3 s on a quiet host; on one with other work, in minutes. */
const BOOT_LIMIT_MS = 420_000;

export class CommandFailed extends Error {
  override readonly name = "CommandFailed";
  readonly result: CommandResult;

  constructor(host: string, command: string, result: CommandResult) {
    const how = result.signal === null ? `exit code ${result.code}` : result.signal;
    super(
      `${host}: ${command}: ${how}\n${result.stdout.slice(-2000)}${result.stderr.slice(-4000)}`,
    );
    this.result = result;
  }
}

/** Takes the one connection that QEMU makes to a socket. */
async function oneConnection(path: string): Promise<() => Promise<Socket>> {
  const server = createServer();
  const socket = new Promise<Socket>((resolve) => server.once("connection", resolve));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  return async () => {
    try {
      return await within(30_000, socket, () => "qemu to start");
    } finally {
      server.close();
    }
  };
}

export class Machine {
  readonly name: string;
  readonly #options: MachineOptions;
  readonly #folder: string;
  #qemu: ChildProcess | undefined;
  #agent: AgentChannel | undefined;
  #qmp: Qmp | undefined;
  #down: Promise<void> = Promise.resolve();

  /** Made by `startMachine`. */
  constructor(options: MachineOptions, folder: string) {
    this.name = options.name;
    this.#options = options;
    this.#folder = folder;
  }

  get isUp(): boolean {
    return this.#agent !== undefined;
  }

  /** Starts a command with bash, and does not wait for it. No time limit: end it, or the machine. */
  start(command: string, options?: CommandOptions): LabProcess {
    if (this.#agent === undefined) throw new Error(`machine ${this.name} is down`);
    return this.#agent.start(command, options);
  }

  /** Runs a command with bash to its end, whatever its exit code. */
  async attempt(command: string, options: CommandOptions = {}): Promise<CommandResult> {
    const process = this.start(command, options);
    const limit = options.limitMs ?? 120_000;
    try {
      return await within(limit, process.ended, () => {
        return `${this.name}: ${command}\n${process.stdout}${process.stderr}`;
      });
    } finally {
      process.signal("SIGKILL");
    }
  }

  /**
   * Runs a command with bash, and answers its standard output without the last line break.
   * @throws {CommandFailed} on an exit code that is not 0
   */
  async run(command: string, options?: CommandOptions): Promise<string> {
    const result = await this.attempt(command, options);
    if (result.code !== 0) throw new CommandFailed(this.name, command, result);
    return result.stdout.replace(/\n$/, "");
  }

  async write(path: string, content: string | Buffer, mode = "644"): Promise<void> {
    const command = `mkdir -p "$(dirname "$F")" && cat > "$F" && chmod ${mode} "$F"`;
    await this.run(command, { input: content, env: { F: path } });
  }

  /** Freezes it, with its clock. */
  async pause(): Promise<void> {
    await this.#qmp?.ask("stop");
  }

  async resume(): Promise<void> {
    await this.#qmp?.ask("cont");
  }

  /** As a power cut: nothing is flushed, no one is told. */
  async kill(): Promise<void> {
    this.#qemu?.kill("SIGKILL");
    await this.#down;
  }

  /** Boots it again from its disks after `kill`. */
  async restart(): Promise<void> {
    await this.kill();
    await this.#boot();
  }

  /** Ends it, and removes its disks. */
  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** What it has printed on its console since it was started last. */
  get console(): string {
    const file = join(this.#folder, "console");
    return existsSync(file) ? readFileSync(file, "utf8") : "";
  }

  /** Called once by `startMachine`; `restart` is for tests. */
  async boot(): Promise<void> {
    const base = join(await labImage(), "root.ext4");
    const disk = join(this.#folder, "root.qcow2");
    execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, disk]);
    for (const [index, size] of (this.#options.diskMiB ?? []).entries())
      execFileSync("truncate", ["-s", `${size}M`, join(this.#folder, `disk${index}`)]);
    await this.#boot();
  }

  async #boot(): Promise<void> {
    const agent = await oneConnection(this.#socket("agent"));
    const qmp = await oneConnection(this.#socket("qmp"));
    const args = await this.#arguments();
    const log = openSync(join(this.#folder, "qemu.log"), "w");
    const qemu = spawn("setpriv", ["--pdeathsig", "KILL", "qemu-system-x86_64", ...args], {
      stdio: ["ignore", log, log],
      env: { ...process.env, TMPDIR: this.#folder },
    });
    closeSync(log);
    this.#qemu = qemu;
    this.#down = new Promise((resolve) => qemu.once("exit", () => resolve(this.#isDown())));
    const died = this.#down.then(() => {
      throw new Error(`machine ${this.name} ended while it booted\n${this.#lastWords()}`);
    });
    // When the boot has succeeded nobody waits for this any more.
    died.catch(() => {});
    try {
      this.#qmp = new Qmp(await Promise.race([qmp(), died]));
      const channel = new AgentChannel(await Promise.race([agent(), died]));
      await this.#options.card?.started(this.#qmp);
      await this.#qmp.ask("cont");
      const what = (): string => `machine ${this.name} to boot\n${this.#lastWords()}`;
      await within(BOOT_LIMIT_MS, Promise.race([channel.ready, died]), what);
      this.#agent = channel;
    } catch (error) {
      await this.kill();
      throw new Error(`machine ${this.name} did not boot\n${this.#lastWords()}`, { cause: error });
    }
  }

  #isDown(): void {
    this.#agent?.lose(new Error(`machine ${this.name} is down`));
    this.#qmp?.close();
    this.#agent = undefined;
    this.#qmp = undefined;
    this.#qemu = undefined;
    for (const name of ["agent", "qmp"]) rmSync(this.#socket(name), { force: true });
  }

  #socket(name: string): string {
    return join(this.#folder, `${name}.sock`);
  }

  #lastWords(): string {
    return `${readFileSync(join(this.#folder, "qemu.log"), "utf8")}${this.console.slice(-4000)}`;
  }

  async #arguments(): Promise<string[]> {
    const image = await labImage();
    const { card, cpus = 2, memoryMiB = 1024, diskMiB = [], vhostSockets = [] } = this.#options;
    const disk = (name: string, options: string): string[] => [
      "-drive",
      `if=none,id=${name},${options}`,
      "-device",
      `virtio-blk-pci,drive=${name},serial=${name}`,
    ];
    const kernel = [
      "console=ttyS0 quiet panic=-1 reboot=t mitigations=off tsc=reliable no_timer_check",
      `selinux=0 audit=0 net.ifnames=0 lab.name=${this.name}`,
      ...(card === undefined ? [] : [`lab.address=${card.address}`]),
    ].join(" ");
    const groups: readonly (readonly string[])[] = [
      ["-S", "-M", "q35,pit=off", "-nodefaults", "-vga", "none", "-display", "none", "-no-reboot"],
      ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
      ["-smp", String(cpus), "-m", String(memoryMiB)],
      // Whoever serves a disk over vhost-user has to see the machine's memory.
      ...(vhostSockets.length === 0
        ? []
        : [
            ["-object", `memory-backend-memfd,id=shared,size=${memoryMiB}M,share=on`],
            ["-machine", "memory-backend=shared"],
          ]),
      ["-kernel", join(image, "vmlinuz"), "-initrd", join(image, "initrd"), "-append", kernel],
      ["-serial", `file:${join(this.#folder, "console")}`],
      ["-chardev", `socket,id=qmp,path=${this.#socket("qmp")}`, "-mon", "qmp,mode=control"],
      disk("root", `format=qcow2,file=${join(this.#folder, "root.qcow2")}`),
      disk("project", `format=raw,readonly=on,file=${await projectTree()}`),
      ...diskMiB.map((_, index) =>
        // Raw and never flushed: what the machine has written is the host's at once, and outlives QEMU.
        disk(`disk${index}`, `format=raw,cache=unsafe,file=${join(this.#folder, `disk${index}`)}`),
      ),
      ["-device", "virtio-serial-pci"],
      ["-chardev", `socket,id=agent,path=${this.#socket("agent")}`],
      ["-device", "virtserialport,chardev=agent,nr=1,name=agent"],
      card?.arguments ?? [],
      ...vhostSockets.map((path, index) => [
        "-chardev",
        `socket,id=vhost${index},path=${path},reconnect=1`,
        "-device",
        `vhost-user-blk-pci,chardev=vhost${index},num-queues=2`,
      ]),
    ];
    return groups.flat();
  }
}

let isWatchingSignals = false;

/** What ends this process must remove the machines' disks too, so it goes the way through `exit`. */
function watchSignals(): void {
  if (isWatchingSignals) return;
  isWatchingSignals = true;
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.once(signal, () => process.exit(128 + constants.signals[signal]));
}

/** Boots a machine; ready for commands when this answers. */
export async function startMachine(options: MachineOptions): Promise<Machine> {
  watchSignals();
  const folder = mkdtempSync(join(tmpdir(), "lab-"));
  const removeFolder = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("exit", removeFolder);
  const machine = new Machine(options, folder);
  try {
    await machine.boot();
    return machine;
  } catch (error) {
    await machine.remove();
    throw error;
  }
}
