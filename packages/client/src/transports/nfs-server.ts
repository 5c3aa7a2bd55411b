/** Whether the server of an NFS mount is there, without a look at the mount, which would wait for it. */
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { MountRecord } from "../executor/executor.js";

const ANSWER_MS = 3_000;
const LOOK_EVERY_MS = 1_000;

interface NfsServer {
  readonly host: string;
  readonly port: number;
}

/** @see nfs(5), "addr" and "port", as the kernel shows them */
export function serverOf({ vfsOpts, source }: MountRecord): NfsServer {
  const valueOf = (key: string): string | undefined =>
    vfsOpts
      .split(",")
      .find((one) => one.startsWith(`${key}=`))
      ?.slice(key.length + 1);
  const named = /^\[?(.*?)\]?:\//.exec(source)?.[1] ?? "";
  // What is chosen by itself is shown as 0, if at all.
  return { host: valueOf("addr") ?? named, port: Number(valueOf("port") ?? 0) || 2049 };
}

function takesConnections(server: NfsServer, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ ...server, timeout: ANSWER_MS });
    const end = (isThere: boolean) => (): void => {
      signal.removeEventListener("abort", given);
      socket.destroy();
      resolve(isThere);
    };
    const given = end(false);
    signal.addEventListener("abort", given, { once: true });
    socket.on("error", end(false)).once("timeout", end(false)).once("connect", end(true));
  });
}

/**
 * Does what may wait for a server as long as that is there.
 * @param awayMs how long it may take no connection
 * @param act ends when its signal does
 * @returns undefined when it was given up because the server is away
 */
export async function whileThere<T>(
  server: NfsServer,
  awayMs: number,
  signal: AbortSignal,
  act: (signal: AbortSignal) => Promise<T>,
): Promise<T | undefined> {
  const away = new AbortController();
  const done = new AbortController();
  const watch = async (): Promise<void> => {
    let last = performance.now();
    while (!done.signal.aborted) {
      if (await takesConnections(server, done.signal)) last = performance.now();
      else if (performance.now() - last >= awayMs) away.abort();
      await sleep(LOOK_EVERY_MS, undefined, { signal: done.signal }).catch(() => {});
    }
  };
  const watching = watch();
  try {
    return await act(AbortSignal.any([signal, away.signal]));
  } catch (error) {
    if (away.signal.aborted && !signal.aborted) return undefined;
    throw error;
  } finally {
    done.abort();
    await watching;
  }
}
