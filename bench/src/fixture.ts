/** Folders full of volumes, and processes that serve them. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** What has to be ended or removed when this process ends. */
const LEFT = new Set<() => void>();
process.on("exit", () => {
  for (const clear of LEFT) clear();
});

/** Is done when the run ends, before what was asked for earlier. */
export function onEnd(clear: () => void): void {
  const later = [...LEFT];
  LEFT.clear();
  for (const one of [clear, ...later]) LEFT.add(one);
}

/** A folder that ends with the run. */
export function workFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "libstorage-bench-"));
  LEFT.add(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Volumes in the layout of the reference, as another server would have left them. */
export function seedVolumes(root: string, count: number): void {
  for (const folder of ["vol", "snap"]) mkdirSync(join(root, folder), { recursive: true });
  for (let number = 0; number < count; number += 1) {
    const id = `vfs-${String(number).padStart(3, "0")}`;
    mkdirSync(join(root, "vol", id), { recursive: true });
    const volume = {
      name: `volume ${number}`,
      size: 10,
      id,
      type: "gold",
      fields: { owner: "bench" },
    };
    writeFileSync(join(root, "vol", `${id}.json`), JSON.stringify(volume));
  }
}

export interface Served {
  readonly process: ChildProcess;
  readonly url: string;
  /** Milliseconds from its start until it said that it serves. */
  readonly startMs: number;
  stop(): Promise<void>;
}

/** Starts one of this folder's programs, which prints its URL once it serves. */
export async function serve(program: string, args: readonly string[]): Promise<Served> {
  const script = fileURLToPath(new URL(program, import.meta.url));
  const started = performance.now();
  const child = spawn(process.execPath, [script, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const stop = stopper(child);
  for await (const url of createInterface({ input: child.stdout })) {
    const startMs = performance.now() - started;
    return { process: child, url, startMs, stop };
  }
  throw new Error(`${program} ended before it served`);
}

/** Ends a program in order; one that still runs at our end is killed. */
function stopper(child: ChildProcess): () => Promise<void> {
  const kill = (): void => void child.kill("SIGKILL");
  LEFT.add(kill);
  return async () => {
    LEFT.delete(kill);
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    await ended;
  };
}

const SERVER = fileURLToPath(
  new URL("../../packages/server/bin/libstorage-server.mjs", import.meta.url),
);

/**
 * Starts the real server on a Unix socket, with one service that has its driver's name, and waits until it says that it is ready.
 * @param keys the driver's own
 * @param more the service's
 */
export async function serveReally(
  home: string,
  root: string,
  driver = "vfs",
  keys: Readonly<Record<string, unknown>> = {},
  more: Readonly<Record<string, unknown>> = {},
): Promise<Served> {
  const socket = join(home, "bench.sock");
  const file = join(home, "config.yml");
  mkdirSync(home, { recursive: true });
  const server = {
    endpoints: { socket: { address: `unix://${socket}` } },
    services: { [driver]: { driver, [driver]: { root, ...keys }, ...more } },
  };
  writeFileSync(file, JSON.stringify({ libstorage: { server } }));
  const started = performance.now();
  const child = spawn(process.execPath, [SERVER, "--config", file], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, LIBSTORAGE_HOME: home },
  });
  const stop = stopper(child);
  while (!(await isReady(socket))) {
    if (child.exitCode !== null) throw new Error("the server ended before it was ready");
    await setTimeout(2);
  }
  return { process: child, url: socket, startMs: performance.now() - started, stop };
}

function isReady(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    get({ socketPath, path: "/ready" }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    }).on("error", () => resolve(false));
  });
}
