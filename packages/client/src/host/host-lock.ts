/**
 * One process of this host at a time works on one volume, however the last one ended. The lock is a
 * listening socket: the kernel closes it with its process, so that nobody has to guess from a number
 * whether that still lives, and whoever waits hears of its end. No command has to be started for it.
 */
import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync } from "node:fs";
import { open, unlink } from "node:fs/promises";
import { connect, createServer } from "node:net";
import type { Server, Socket } from "node:net";
import { basename, dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { Exec } from "../executor/exec.js";
import { noting } from "./steps.js";

/** A name that `sun_path` has room for beside the folder's descriptor; see unix(7). */
const MAX_NAME_BYTES = 80;
const GUARD_WAIT_S = 10;
const PAUSE_MS = 20;

interface Held {
  release(): Promise<void>;
}

/** @returns undefined when somebody has it */
function tryToHold(path: string): Promise<Held | undefined> {
  const waiting = new Set<Socket>();
  const server: Server = createServer((socket) => {
    waiting.add(socket);
    socket.on("error", () => {}).once("close", () => waiting.delete(socket));
    socket.write(String(process.pid));
  });
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") resolve(undefined);
      else reject(error);
    });
    server.listen(path, () =>
      resolve({
        release: () =>
          new Promise((done) => {
            // The file goes first, then those that wait are told.
            server.close(() => done());
            for (const socket of waiting) socket.destroy();
          }),
      }),
    );
  });
}

type Holder = { readonly kind: "gone" | "dead" } | { readonly kind: "alive"; readonly pid: string };

/** Waits for the end of the holder, at most so long. */
function watchHolder(path: string, waitMs: number, signal: AbortSignal): Promise<Holder> {
  return new Promise((resolve) => {
    let pid = "";
    let isConnected = false;
    const socket = connect(path);
    const done = (holder: Holder): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      socket.destroy();
      resolve(holder);
    };
    const end = (): void => done({ kind: "alive", pid });
    const timer = setTimeout(end, waitMs);
    signal.addEventListener("abort", end, { once: true });
    socket.on("data", (chunk) => (pid += String(chunk)));
    socket.once("connect", () => (isConnected = true));
    socket.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED" && !isConnected) done({ kind: "dead" });
      else done({ kind: "gone" });
    });
    socket.once("close", () => done({ kind: "gone" }));
  });
}

function isDead(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const done = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => done(false));
    socket.once("error", (error: NodeJS.ErrnoException) => done(error.code === "ECONNREFUSED"));
  });
}

/** Removes what a dead process left. Of several that see it one at a time looks again and removes. */
async function clearAway(
  exec: Exec,
  path: string,
  folder: number,
  signal: AbortSignal,
): Promise<void> {
  // A descriptor of its own: the lock of flock(2) goes with it.
  const guard = await open(`/proc/self/fd/${folder}`, "r");
  try {
    await exec("flock", ["--exclusive", "--wait", String(GUARD_WAIT_S), "0"], {
      signal,
      stdin: guard.fd,
      timeoutMs: (GUARD_WAIT_S + 5) * 1000,
    });
    if (await isDead(path)) await unlink(path).catch(() => {});
  } finally {
    await guard.close();
  }
}

/**
 * Runs `act` under the lock of a file.
 * @param exec for clearing away after a process that was killed
 * @throws {StorageError} `aborted`, naming the process that has it, when `waitMs` are over
 */
export async function withHostLock<T>(
  exec: Exec,
  file: string,
  { waitMs, signal }: { readonly waitMs: number; readonly signal: AbortSignal },
  act: () => Promise<T>,
): Promise<T> {
  // Of this host's own folder, which answers sooner than another thread could be asked.
  mkdirSync(dirname(file), { recursive: true, mode: 0o755 });
  const folder = openSync(dirname(file), "r");
  try {
    const full = basename(file);
    const isLong = Buffer.byteLength(full) > MAX_NAME_BYTES;
    const name = isLong ? createHash("sha256").update(full).digest("hex") : full;
    // Paths of sockets are short; through the descriptor of its folder every one is.
    const path = `/proc/self/fd/${folder}/${name}`;
    const first = await tryToHold(path);
    const held =
      first ??
      (await noting("another call for the same volume", () =>
        waitToHold(exec, { file, path, folder, waitMs, signal }),
      ));
    try {
      return await act();
    } finally {
      await held.release();
    }
  } finally {
    closeSync(folder);
  }
}

interface Wait {
  readonly file: string;
  readonly path: string;
  readonly folder: number;
  readonly waitMs: number;
  readonly signal: AbortSignal;
}

async function waitToHold(exec: Exec, { file, path, folder, waitMs, signal }: Wait): Promise<Held> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    const left = deadline - performance.now();
    const holder = await watchHolder(path, Math.max(0, left), signal);
    if (signal.aborted)
      throw new StorageError("cancelled", "waiting for another process of this host was ended");
    if (holder.kind === "alive") {
      const seconds = Math.max(1, Math.round(waitMs / 1000));
      throw new StorageError(
        "aborted",
        `another process of this host works on the volume${holder.pid === "" ? "" : ` (pid ${holder.pid})`} for more than ${seconds} s; wait for it, or end it`,
        { lock: file, holder: holder.pid },
      );
    }
    if (holder.kind === "dead") await clearAway(exec, path, folder, signal);
    const held = await tryToHold(path);
    if (held !== undefined) return held;
    // Somebody else was faster, or the file is one of those that cannot be connected to for a moment.
    await sleep(Math.random() * PAUSE_MS);
  }
}
