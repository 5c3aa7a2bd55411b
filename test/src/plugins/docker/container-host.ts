/**
 * A host for containers inside this one: its own mount, network and process namespaces, with real daemons
 * in them. All of it ends with its first process.
 */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseMountTable } from "@libstorage/client/host";
import { BIN, SERVER_BIN, makeFolder } from "../../client/fixture.js";

function has(program: string): boolean {
  return spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
}

/** Why no containers can be run here, or false. @param programs what is needed besides namespaces */
export function cannotContain(...programs: string[]): string | false {
  if (process.platform !== "linux" || process.geteuid?.() !== 0) return "needs root on Linux";
  const missing = programs.find((program) => !has(program));
  if (missing !== undefined) return `${missing} is not installed`;
  if (!existsSync(BUSYBOX)) return "busybox-static is not installed";
  const made = spawnSync("unshare", [...UNSHARE, "true"], { encoding: "utf8" });
  return made.status === 0 ? false : `this host makes no namespaces: ${made.stderr.trim()}`;
}

const BUSYBOX = "/bin/busybox";
const UNSHARE = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
const APPLETS = ["sh", "echo", "cat", "sleep", "mount", "ls", "true", "touch", "dd", "sync"];

export interface Ran {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running {
  /** Of the program, as this process sees it. */
  readonly pid: number;
  readonly ended: Promise<number | null>;
  /** Everything on standard output and error so far. */
  output(): string;
  kill(signal: NodeJS.Signals): void;
}

/** Waits until `ask` is neither false nor undefined. */
export async function until<T>(
  what: string,
  ask: () => T | false | undefined | Promise<T | false | undefined>,
  limitMs = 30_000,
): Promise<T> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (performance.now() > deadline) throw new Error(`waited ${limitMs} ms until ${what}`);
    await sleep(25);
  }
}

/** The processes that one has started. */
function childrenOf(pid: number): readonly number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
    return text.split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

export interface HostSettings {
  /** Run in the first process of the host. */
  readonly setUp?: string;
}

export class ContainerHost {
  readonly folder: string;
  /** What is /run/docker/plugins inside. */
  readonly plugins: string;
  readonly home: string;
  readonly #keeper: ChildProcess;
  readonly #first: number;
  readonly #started: Running[] = [];

  private constructor(folder: string, keeper: ChildProcess, first: number) {
    this.folder = folder;
    this.plugins = join(folder, "plugins");
    this.home = join(folder, "home");
    this.#keeper = keeper;
    this.#first = first;
  }

  static async start({ setUp = "" }: HostSettings = {}): Promise<ContainerHost> {
    const folder = await makeFolder();
    for (const name of ["plugins", "home/etc", "etc-docker"])
      mkdirSync(join(folder, name), { recursive: true });
    // What daemons insist on is private; what the test looks at is not.
    const script = `set -e
mount -t tmpfs t /run
mkdir -p /run/docker/plugins /run/containerd /etc/docker
mount --bind ${folder}/plugins /run/docker/plugins
mount --bind ${folder}/etc-docker /etc/docker
ip link set lo up
${setUp}
echo ready
# A shell that waits also reaps what lost its parent; a daemon would take a zombie for alive.
sleep infinity & wait`;
    const keeper = spawn("unshare", [...UNSHARE, "sh", "-c", script], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    for (const stream of [keeper.stdout, keeper.stderr])
      stream.on("data", (chunk) => (said += String(chunk)));
    await until("the host is there", () => {
      if (keeper.exitCode !== null) throw new Error(`the host ended: ${said}`);
      return said.includes("ready");
    });
    const [first] = childrenOf(keeper.pid ?? 0);
    if (first === undefined) throw new Error("the host has no first process");
    return new ContainerHost(folder, keeper, first);
  }

  #enter(command: readonly string[]): string[] {
    return ["--target", String(this.#first), "--mount", "--net", "--pid", "--", ...command];
  }

  /** A cable between two hosts. */
  static link(
    [one, oneAddress]: readonly [ContainerHost, string],
    [other, otherAddress]: readonly [ContainerHost, string],
  ): void {
    const name = `c${one.#first}x${other.#first}`.slice(0, 15);
    const sh = (script: string): void => {
      const { status, stderr } = spawnSync("sh", ["-ec", script], { encoding: "utf8" });
      if (status !== 0) throw new Error(`${script}: ${stderr}`);
    };
    sh(`ip link add ${name} netns ${one.#first} type veth peer name ${name} netns ${other.#first}`);
    for (const [host, address] of [
      [one, oneAddress],
      [other, otherAddress],
    ] as const)
      sh(`nsenter --net=/proc/${host.#first}/ns/net sh -ec \
'ip address add ${address}/30 dev ${name}; ip link set ${name} up'`);
  }

  /** Runs a program inside to its end. */
  async run(
    command: readonly string[],
    { env = {}, input }: { readonly env?: NodeJS.ProcessEnv; readonly input?: string } = {},
  ): Promise<Ran> {
    const child = spawn("nsenter", this.#enter(command), {
      env: { PATH: PATH, HOME: this.folder, ...env },
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    child.stdin?.end(input);
    let [stdout, stderr] = ["", ""];
    child.stdout?.on("data", (chunk) => (stdout += String(chunk)));
    child.stderr?.on("data", (chunk) => (stderr += String(chunk)));
    const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
    return { code, stdout, stderr };
  }

  /** Like `run`, for what must succeed. @returns standard output without its last line break */
  async must(command: readonly string[], options = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(command, options);
    if (code !== 0) throw new Error(`${command.join(" ")}: ${code}: ${stderr}${stdout}`);
    return stdout.trim();
  }

  /** Starts a program inside that goes on. */
  async spawn(command: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Running> {
    const child = spawn("nsenter", this.#enter(command), {
      env: { PATH: PATH, HOME: this.folder, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk) => (output += String(chunk)));
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    // nsenter(1) forks into the new process namespace and passes no signals on.
    const pid = await until(`${command[0]} runs`, () => childrenOf(child.pid ?? 0)[0], 10_000);
    const running: Running = {
      pid,
      ended,
      output: () => output,
      kill: (signal) => {
        try {
          process.kill(pid, signal);
        } catch {
          // It has ended.
        }
      },
    };
    this.#started.push(running);
    return running;
  }

  /** The client's configuration on this host. */
  configure(text: string): void {
    writeFileSync(join(this.home, "etc/config.yml"), text);
  }

  async server(config: string): Promise<Running> {
    const file = join(this.folder, "server.yml");
    writeFileSync(file, config);
    const server = await this.spawn([process.execPath, SERVER_BIN, "--config", file], {
      LIBSTORAGE_HOME: this.home,
    });
    await until("the server is ready", () => {
      if (!isAlive(server.pid)) throw new Error(`the server ended: ${server.output()}`);
      return /^ {2}endpoint /m.test(server.output());
    });
    return server;
  }

  /** A server on a socket of this host, with one service. */
  async localServer(
    service = `vfs: { driver: vfs, vfs: { root: "${this.folder}/vfs" } }`,
  ): Promise<Running> {
    return this.server(`
libstorage:
  server:
    endpoints: { local: { address: "unix://${this.folder}/server.sock" } }
    services: { ${service} }
`);
  }

  get localServerAddress(): string {
    return `unix://${this.folder}/server.sock`;
  }

  /** The plugin as a process, ready. @param args more words for its command line */
  async plugin(args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Promise<Running> {
    const plugin = await this.spawn([process.execPath, BIN, "plugin", "docker", ...args], {
      LIBSTORAGE_HOME: this.home,
      ...env,
    });
    await until("the plugin is ready", () => {
      if (!isAlive(plugin.pid)) throw new Error(`the plugin ended: ${plugin.output()}`);
      return plugin.output().includes("ready: ");
    });
    return plugin;
  }

  /** With the local server and its service. */
  localPlugin(args: readonly string[] = [], service = "vfs"): Promise<Running> {
    return this.plugin(["--host", this.localServerAddress, "--service", service, ...args]);
  }

  #podman(words: readonly string[]): readonly string[] {
    const places = ["--root", "podman", "--runroot", "podrun", "--tmpdir", "podtmp"];
    return [
      "podman",
      ...places.map((word) => (word.startsWith("-") ? word : join(this.folder, word))),
      ...words,
    ];
  }

  /** What has nothing to do with volumes is as this machine needs it: no systemd, small limits. */
  get #podmanEnv(): NodeJS.ProcessEnv {
    const file = join(this.folder, "containers.conf");
    const text = `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
[engine.volume_plugins]
libstorage = "/run/docker/plugins/libstorage.sock"
`;
    writeFileSync(file, text);
    return { CONTAINERS_CONF: file };
  }

  podman(...words: string[]): Promise<Ran> {
    return this.run(this.#podman(words), { env: this.#podmanEnv });
  }

  mustPodman(...words: string[]): Promise<string> {
    return this.must(this.#podman(words), { env: this.#podmanEnv });
  }

  async dockerd(args: readonly string[] = []): Promise<Running> {
    const daemon = await this.spawn([
      "dockerd",
      "--iptables=false",
      "--ip6tables=false",
      "--bridge=none",
      "--data-root",
      join(this.folder, "docker"),
      "--exec-root",
      "/run/docker",
      "--pidfile",
      join(this.folder, "docker.pid"),
      "-H",
      this.dockerAddress,
      ...args,
    ]);
    await until("dockerd answers", async () => {
      if (!isAlive(daemon.pid)) throw new Error(`dockerd ended: ${daemon.output()}`);
      return (await this.docker("version")).code === 0;
    });
    return daemon;
  }

  get dockerAddress(): string {
    return `unix://${this.folder}/docker.sock`;
  }

  docker(...args: string[]): Promise<Ran> {
    return this.run(["docker", "-H", this.dockerAddress, ...args]);
  }

  mustDocker(...args: string[]): Promise<string> {
    return this.must(["docker", "-H", this.dockerAddress, ...args]);
  }

  /** An image with a shell in it, made without any network. @returns the file */
  imageFile(): string {
    const file = join(this.folder, "image.tar");
    if (existsSync(file)) return file;
    const root = join(this.folder, "image");
    mkdirSync(join(root, "bin"), { recursive: true });
    copyFileSync(BUSYBOX, join(root, "bin/busybox"));
    chmodSync(join(root, "bin/busybox"), 0o755);
    for (const name of APPLETS) symlinkSync("busybox", join(root, "bin", name));
    spawnSync("tar", ["-C", root, "-cf", file, "."]);
    return file;
  }

  /** Mount points inside that lie below the folder of volumes. */
  mounts(): readonly string[] {
    const below = `${this.home}/var/lib/`;
    return parseMountTable(readFileSync(`/proc/${this.#first}/mountinfo`))
      .map(({ mountPoint }) => mountPoint)
      .filter((at) => at.startsWith(below));
  }

  async close(): Promise<void> {
    for (const running of this.#started.toReversed()) running.kill("SIGKILL");
    // The first process takes all others of its namespace with it.
    try {
      process.kill(this.#first, "SIGKILL");
    } catch {
      this.#keeper.kill("SIGKILL");
    }
    if (this.#keeper.exitCode === null && this.#keeper.signalCode === null)
      await new Promise((resolve) => this.#keeper.once("close", resolve));
    await rm(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

const PATH = "/usr/sbin:/usr/bin:/sbin:/bin";

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
