/** QMP on a Unix socket that only its owner may open. */
import { mkdir } from "node:fs/promises";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { dirname } from "node:path";
import { StorageError } from "@libstorage/model";
import type { Logger } from "../../core/log.js";
import { claimSocketPath } from "../../listening/socket-path.js";
import type { Qmp } from "./qmp.js";

export interface QmpSocket {
  close(): Promise<void>;
}

const MAX_CLIENTS = 64;

/** @throws {StorageError} when the path is too long, or taken: nothing that is there gives way, but a dead socket */
export async function listenForQmp(qmp: Qmp, path: string, log: Logger): Promise<QmpSocket> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  await claimSocketPath(path, "qmp");
  const open = new Set<Socket>();
  // Who has said all still wants his answers.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    socket.on("error", () => socket.destroy());
    void qmp.talk(socket, socket, { who: "unix" }).finally(() => socket.end());
  });
  server.maxConnections = MAX_CLIENTS;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => {
      reject(
        new StorageError("unavailable", `QMP cannot be served on ${path}: ${error.message}`, {
          path,
        }),
      );
    });
    server.once("listening", resolve);
    // The file is made within `listen`, with the right permissions from its first moment.
    const before = process.umask(0o177);
    try {
      server.listen(path);
    } finally {
      process.umask(before);
    }
  });
  server.on("error", (error) => log.error({ error: error.message }, "the QMP socket failed"));
  return {
    close: async () => {
      const closed = new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}
