/** Folders full of volumes, and processes that serve them. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** A folder that ends with the run. */
export function workFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "libstorage-bench-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
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
  const end = (): boolean => child.kill("SIGKILL");
  process.on("exit", end);
  for await (const url of createInterface({ input: child.stdout })) {
    const startMs = performance.now() - started;
    return {
      process: child,
      url,
      startMs,
      stop: async () => {
        process.off("exit", end);
        const ended = once(child, "exit");
        child.kill("SIGTERM");
        await ended;
      },
    };
  }
  throw new Error(`${program} ended before it served`);
}
