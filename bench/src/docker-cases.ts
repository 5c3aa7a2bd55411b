/** The Docker plugin as a process, over a server as a process: against what it stands on. */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { onEnd, seedVolumes, serveReally, workFolder } from "./fixture.js";
import type { Served } from "./fixture.js";
import { alternate, figure, median } from "./measure.js";
import type { Figure, Say } from "./measure.js";

const CLI = fileURLToPath(new URL("../../packages/client/bin/libstorage.mjs", import.meta.url));
const ROUNDS = 5;
const MANY = 1_000;
const CALLERS = 16;
const VOLUMES = 100;

interface Plugin {
  readonly folder: string;
  readonly server: Served;
  readonly process: ChildProcess;
  call(operation: string, body: unknown): Promise<string>;
  stop(): Promise<void>;
}

const agent = new Agent({ keepAlive: true, maxSockets: CALLERS });

function asked(socketPath: string, path: string, method: string, body = ""): Promise<string> {
  return new Promise((resolve, reject) => {
    const req = request({ socketPath, path, method, agent }, (res) => {
      let text = "";
      res.setEncoding("utf8");
      res.on("data", (chunk: string) => (text += chunk));
      res.on("error", reject);
      res.on("end", () => {
        if (res.statusCode === 200) resolve(text);
        else reject(new Error(`${path}: ${res.statusCode} ${text}`));
      });
    });
    req.on("error", reject);
    req.end(body);
  });
}

async function openPlugin(volumes: number): Promise<Plugin> {
  const folder = workFolder();
  seedVolumes(join(folder, "vfs"), volumes);
  const server = await serveReally(join(folder, "home"), join(folder, "vfs"));
  mkdirSync(join(folder, "plugins"));
  const socket = join(folder, "plugins/bench.sock");
  const address = ["--listen", `unix://${socket}`, "--host", `unix://${server.url}`];
  const child = spawn(process.execPath, [CLI, "plugin", "docker", ...address, "-s", "vfs"], {
    stdio: ["ignore", "pipe", "ignore"],
    env: { ...process.env, LIBSTORAGE_HOME: join(folder, "host") },
  });
  onEnd(() => child.kill("SIGKILL"));
  for await (const line of createInterface({ input: child.stdout }))
    if (line.startsWith("ready")) break;
  return {
    folder,
    server,
    process: child,
    call: (operation, body) =>
      asked(socket, `/VolumeDriver.${operation}`, "POST", JSON.stringify(body)),
    async stop() {
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
      await server.stop();
    },
  };
}

/** The middle of some times. */
async function medianMs(count: number, act: (index: number) => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const started = performance.now();
    await act(index);
    times.push(performance.now() - started);
  }
  return median(times);
}

export function residentMB({ pid }: ChildProcess): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

async function list(say: Say): Promise<Figure[]> {
  const plugin = await openPlugin(MANY);
  const { url } = plugin.server;
  // Until the caller has the volumes, on both sides.
  const { ratio, ...sides } = await alternate(
    ROUNDS,
    () => medianMs(30, async () => JSON.parse(await plugin.call("List", {})) as unknown),
    () =>
      medianMs(
        30,
        async () => JSON.parse(await asked(url, "/volumes/vfs?attachments=1", "GET")) as unknown,
      ),
  );
  const memory = residentMB(plugin.process);
  say(`List ${median(sides.ours).toFixed(1)} ms, REST list ${median(sides.theirs).toFixed(1)} ms`);
  await plugin.stop();
  return [
    figure("Docker List of 1,000 volumes, over the REST list", ratio, 2, "lower"),
    figure("Docker plugin at 1,000 volumes: resident memory, MB", memory, 120, "lower"),
  ];
}

/** mount(8) of one folder to another, as a program would call it. */
async function mountCommand(from: string, to: string): Promise<void> {
  const child = spawn("mount", ["-o", "bind", "--", from, to], { stdio: "ignore" });
  const [code] = (await once(child, "exit")) as [number];
  if (code !== 0) throw new Error("mount failed");
}

async function mount(say: Say): Promise<Figure[]> {
  const plugin = await openPlugin(0);
  const { folder, server } = plugin;
  const [from, to] = [join(folder, "from"), join(folder, "to")];
  for (const one of [from, to]) mkdirSync(one);
  await plugin.call("Create", { Name: "bench", Opts: { size: "1" } });
  // Attached by hand, and so attached still after each unmount is attached again.
  const attach = async (): Promise<void> => {
    const env = { ...process.env, LIBSTORAGE_HOME: join(folder, "host") };
    const words = ["volume", "attach", "bench", "--host", `unix://${server.url}`, "-s", "vfs"];
    const { status, stderr } = spawnSync(process.execPath, [CLI, ...words], {
      env,
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(stderr);
  };
  const timed = async (act: () => Promise<unknown>): Promise<number> => {
    const started = performance.now();
    await act();
    return performance.now() - started;
  };
  const { ratio, ...sides } = await alternate(
    ROUNDS,
    async () => {
      const times: number[] = [];
      for (let count = 0; count < 5; count += 1) {
        await attach();
        times.push(await timed(() => plugin.call("Mount", { Name: "bench", ID: "c" })));
        await plugin.call("Unmount", { Name: "bench", ID: "c" });
      }
      return median(times);
    },
    async () => {
      const times: number[] = [];
      for (let count = 0; count < 5; count += 1) {
        times.push(await timed(() => mountCommand(from, to)));
        spawnSync("umount", [to]);
      }
      return median(times);
    },
  );
  say(`Mount ${median(sides.ours).toFixed(1)} ms, mount(8) ${median(sides.theirs).toFixed(1)} ms`);
  await plugin.stop();
  return [figure("Docker Mount of an attached vfs volume, over mount(8)", ratio, 1.5, "lower")];
}

/** @returns how many calls failed */
export async function inParallel(
  count: number,
  act: (index: number) => Promise<unknown>,
): Promise<number> {
  let next = 0;
  let failed = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++)
      await act(index).catch(() => {
        failed += 1;
      });
  };
  await Promise.all(Array.from({ length: CALLERS }, worker));
  return failed;
}

async function parallel(say: Say): Promise<Figure[]> {
  const plugin = await openPlugin(0);
  const started = performance.now();
  const failed = await inParallel(VOLUMES, async (index) => {
    const Name = `bench-${index}`;
    const ID = `container-${index}`;
    await plugin.call("Create", { Name, Opts: { size: "1" } });
    await plugin.call("Mount", { Name, ID });
    await plugin.call("Path", { Name });
    await plugin.call("Unmount", { Name, ID });
    await plugin.call("Remove", { Name });
  });
  say(
    `${VOLUMES} volumes created, mounted, unmounted, removed in ${(performance.now() - started).toFixed(0)} ms`,
  );
  const left = (JSON.parse(await plugin.call("List", {})) as { Volumes: unknown[] }).Volumes.length;
  const table = readFileSync("/proc/self/mountinfo", "utf8");
  const mounted = table.split("\n").filter((line) => line.includes(` ${plugin.folder}/`)).length;
  await plugin.stop();
  return [
    figure("Docker: 100 volumes by 16 callers, calls that failed", failed, 0, "lower"),
    figure(
      "Docker: 100 volumes by 16 callers, volumes and mounts left",
      left + mounted,
      0,
      "lower",
    ),
  ];
}

/** What needs no mount, and what does; only root can mount. */
export async function dockerPlugin(say: Say): Promise<Figure[]> {
  if (process.geteuid?.() === 0) return [...(await list(say)), ...(await parallel(say))];
  say("only root can mount: that is not measured");
  return list(say);
}

/** One mount against the command below it. */
export const dockerMount = mount;
