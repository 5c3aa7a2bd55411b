/** A server with image volumes that it exports, and the same commands by hand. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { onEnd, serveReally, workFolder } from "./fixture.js";
import type { Served } from "./fixture.js";

export const MIB = 1024 ** 2;

/** @returns those that are not installed, in words; undefined when all are */
export function missing(...tools: readonly string[]): string | undefined {
  const absent = tools.filter((tool) => spawnSync(tool, ["--version"]).error !== undefined);
  return absent.length === 0 ? undefined : `${absent.join(", ")} not installed`;
}

/**
 * As a program would call it, and without stopping what this process does meanwhile. It gets a session of its
 * own, as a command of the server does: a busy Linux gives each session its part (sched(7), autogroups).
 * @returns its output
 */
export async function command(file: string, ...args: readonly string[]): Promise<string> {
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], detached: true });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data) => (stdout += String(data)));
  child.stderr.on("data", (data) => (stderr += String(data)));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`${file} ${args.join(" ")}: ${stderr}`);
  return stdout;
}

export async function timed(act: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await act();
  return performance.now() - started;
}

/** Ends what has a folder among its arguments: storage daemons outlive whoever started them. */
export function endAllIn(folder: string): void {
  // Once more for what a server started before it was ended itself.
  for (let round = 0; round < 2; round += 1)
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      try {
        const text = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        if (Number(pid) !== process.pid && text.includes(`${folder}/`))
          process.kill(Number(pid), "SIGKILL");
      } catch {
        // It has ended.
      }
    }
}

/** A folder that ends with the run, and with it every daemon that works there. */
export function daemonFolder(): string {
  const folder = workFolder();
  onEnd(() => endAllIn(folder));
  return folder;
}

/** A storage daemon as it is started by hand: it is ready when the command has ended. */
export async function daemonByHand(folder: string, args: readonly string[]): Promise<number> {
  const pidFile = join(folder, "pid");
  await command("qemu-storage-daemon", "--daemonize", "--pidfile", pidFile, ...args);
  return Number.parseInt(readFileSync(pidFile, "latin1"), 10);
}

/** What exports an image on a Unix socket: the options are QEMU's, in their order. */
export function exportByHand(format: string, image: string, socket: string): readonly string[] {
  return [
    `--blockdev=driver=file,node-name=file,filename=${image}`,
    `--blockdev=driver=${format},node-name=volume,file=file`,
    `--nbd-server=addr.type=unix,addr.path=${socket}`,
    "--export=type=nbd,id=e0,node-name=volume,name=by-hand,writable=on",
  ];
}

/** Ends a daemon in order, and waits for it. */
export async function endDaemon(pid: number): Promise<void> {
  process.kill(pid, "SIGTERM");
  const isThere = (): boolean => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8") !== "";
    } catch {
      return false;
    }
  };
  while (isThere()) await new Promise((resolve) => setTimeout(resolve, 2));
}

export interface ExportReply {
  readonly id: string;
  readonly deviceName: string;
  readonly fields: Readonly<Record<string, string>>;
}

export interface AttachReply {
  readonly volume: {
    readonly attachments: readonly {
      readonly deviceName: string;
      readonly fields?: Readonly<Record<string, string>>;
    }[];
  };
}

export interface ImageServer {
  readonly folder: string;
  readonly server: Served;
  call<T>(
    method: string,
    path: string,
    body?: object,
    headers?: Readonly<Record<string, string>>,
  ): Promise<T>;
  /** @returns the id of a new volume of 1 GiB, or of so many */
  volume(format: "raw" | "qcow2", sizeGiB?: number): Promise<string>;
  /** Where a volume's image is. */
  diskOf(id: string, format: "raw" | "qcow2"): string;
  add(volumeID: string, options?: object): Promise<ExportReply>;
  remove(exportID: string): Promise<unknown>;
  stop(): Promise<void>;
}

/** @param nbd keys of the exporter, beside its address */
export async function openImages(nbd: object = {}): Promise<ImageServer> {
  const folder = daemonFolder();
  const root = join(folder, "root");
  const more = { exporter: "nbd", exports: ["nbd"], nbd: { listen: "127.0.0.1:0", ...nbd } };
  const server = await serveReally(join(folder, "home"), root, "image", {}, more);
  const agent = new Agent({ keepAlive: true });
  const call: ImageServer["call"] = (method, path, body, headers = {}) =>
    new Promise((resolve, reject) => {
      const asking = request({ socketPath: server.url, path, method, agent, headers }, (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (part: string) => (text += part));
        answer.on("error", reject).on("end", () => {
          if ((answer.statusCode ?? 0) >= 300) reject(new Error(`${method} ${path}: ${text}`));
          else resolve((text === "" ? undefined : JSON.parse(text)) as never);
        });
      });
      asking.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
  return {
    folder,
    server,
    call,
    async volume(format, size = 1) {
      const body = { name: "bench", size, opts: { format } };
      return (await call<{ id: string }>("POST", "/volumes/image", body)).id;
    },
    diskOf: (id, format) => join(root, "vol", id, `disk.${format}`),
    add: (volumeID, options = {}) =>
      call("POST", "/exports/image", { volumeID, type: "nbd", ...options }),
    remove: (exportID) => call("DELETE", `/exports/image/${exportID}?mode=hard`),
    async stop() {
      agent.destroy();
      await server.stop();
      endAllIn(folder);
    },
  };
}
