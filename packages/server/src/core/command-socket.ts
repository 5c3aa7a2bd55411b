/**
 * Bytes between this process and a command that the spawner starts: a socket with a name, which the spawner
 * connects to and hands on as the command's standard input or output. The name goes with the connection.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { StorageError } from "@libstorage/model";

/** One end of a command. */
export interface CommandSocket {
  readonly path: string;
  /** Resolves when all bytes have passed. Fails when they cannot, which ends the connection. */
  readonly passed: Promise<void>;
  /** Nobody comes any more, or nobody is wanted. */
  close(): void;
}

/** Only this user's processes get at it. */
async function listen(): Promise<{ path: string; connected: Promise<Socket>; close: () => void }> {
  const folder = await mkdtemp(join(tmpdir(), "libstorage-"));
  const path = join(folder, "s");
  const server = createServer({ pauseOnConnect: true });
  const forget = (): void => {
    server.close();
    void rm(folder, { recursive: true, force: true });
  };
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(path, resolve);
    });
  } catch (error) {
    forget();
    throw error;
  }
  let refuse = (_error: Error): void => {};
  const connected = new Promise<Socket>((resolve, reject) => {
    refuse = reject;
    server.once("connection", (socket) => {
      forget();
      resolve(socket);
    });
  });
  connected.catch(() => {});
  const close = (): void => {
    forget();
    refuse(new StorageError("aborted", "the command ended before its bytes could pass"));
  };
  return { path, connected, close };
}

async function open(pass: (socket: Socket) => Promise<void>): Promise<CommandSocket> {
  const { path, connected, close } = await listen();
  let socket: Socket | undefined;
  const passed = connected.then((one) => {
    socket = one;
    return pass(one);
  });
  passed.catch(() => {});
  return {
    path,
    passed,
    close: () => {
      close();
      socket?.destroy();
    },
  };
}

/** A socket that a command reads. @param from is read to its end, whose failure is that of `passed` */
export function openInput(from: Readable): Promise<CommandSocket> {
  return open((socket) => pipeline(from, socket));
}

/** A socket that a command writes to. @param to is left open at the end */
export function openOutput(to: Writable): Promise<CommandSocket> {
  return open((socket) => pipeline(socket, to, { end: false }));
}
