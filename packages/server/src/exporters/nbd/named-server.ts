/**
 * NBD at one address for exports that are served on Unix sockets of their own: a client that has named one is joined
 * to it. Nobody is asked who he is.
 */
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { Logger } from "../../core/log.js";
import { claimSocketPath } from "../../listening/socket-path.js";
import { agree } from "./agreement.js";
import {
  HandshakeError,
  Inlet,
  OPTION,
  REFUSAL,
  acknowledged,
  catchUp,
  exportOf,
  greeting,
  listed,
  readFlags,
  readOption,
  refused,
} from "./handshake.js";
import type { Option } from "./handshake.js";

export interface NamedListening {
  readonly port?: number;
  /** How many clients have an export now. */
  users(): number;
  /** Nobody new is met; who has an export keeps it. A socket's path goes. */
  hide(): void;
  /** Clients are dropped. */
  close(): Promise<void>;
}

export type NamedAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** The exports by their names. */
export interface Directory {
  names(): readonly string[];
  /** The socket that serves an export under the same name; undefined when there is none. */
  socketOf(name: string): Promise<string | undefined>;
}

/** A client that does not get on is not waited for. */
const HANDSHAKE_MS = 15_000;
const MAX_CLIENTS = 4096;

/** A client's words before it has its export. */
interface Talk {
  readonly socket: Socket;
  readonly inlet: Inlet;
  readonly flags: Buffer;
  readonly accepted: readonly Option[];
  readonly option: Option;
}

class NamedServer {
  readonly #directory: Directory;
  readonly #log: Logger;
  readonly #sockets = new Set<Socket>();
  /** Clients that have their export. */
  readonly #joined = new Set<Socket>();
  readonly server: Server;

  constructor(directory: Directory, maxConnections: number, log: Logger) {
    this.#directory = directory;
    this.#log = log;
    // Delays of small packets would stall every request.
    this.server = createServer({ noDelay: true, keepAlive: true }, (socket) => this.#meet(socket));
    this.server.maxConnections = maxConnections === 0 ? MAX_CLIENTS : maxConnections;
    // Others keep the process running.
    this.server.unref();
  }

  #meet(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", () => {});
    void Promise.race([this.#serve(socket), tooLate()]).catch((error: unknown) => {
      const address = socket.remoteAddress ?? "unix";
      this.#log.info({ address, reason: (error as Error).message }, "NBD client turned away");
      socket.destroy();
    });
  }

  async #serve(socket: Socket): Promise<void> {
    socket.write(greeting());
    const inlet = new Inlet(socket);
    const flags = await readFlags(inlet);
    const accepted: Option[] = [];
    for (;;) {
      const option = await readOption(inlet);
      const name = exportOf(option);
      if (option.type === OPTION.abort) {
        socket.end(acknowledged(option));
        return;
      }
      if (option.type === OPTION.structuredReply) {
        accepted.push(option);
        socket.write(acknowledged(option));
      } else if (option.type === OPTION.list) socket.write(listed(option, this.#directory.names()));
      else if (name === undefined)
        socket.write(refused(option, REFUSAL.unsupported, "this option is not known"));
      else {
        const path = await this.#directory.socketOf(name).catch(() => undefined);
        if (path !== undefined) {
          await this.#join({ socket, inlet, flags, accepted, option }, path);
          return;
        }
        if (option.type === OPTION.exportName) throw new HandshakeError("no export of that name");
        socket.write(refused(option, REFUSAL.unknown, `no export of the name '${name}'`));
      }
    }
  }

  /** Until either goes. */
  async #join({ socket, inlet, flags, accepted, option }: Talk, path: string): Promise<void> {
    const daemon = connect(path);
    daemon.on("error", () => {});
    const end = (): void => {
      socket.destroy();
      daemon.destroy();
    };
    socket.once("close", end);
    daemon.once("close", end);
    // It may have left while the export was looked for.
    if (socket.destroyed) end();
    const answers = new Inlet(daemon);
    await catchUp(answers, flags, accepted);
    if (!(await agree(inlet, answers, option))) return;
    // The export may have been taken away while the daemon was asked.
    if ((await this.#directory.socketOf(exportOf(option) ?? "")) !== path || socket.destroyed) {
      end();
      return;
    }
    this.#joined.add(socket);
    socket.once("close", () => this.#joined.delete(socket));
    daemon.write(inlet.release());
    socket.write(answers.release());
    socket.pipe(daemon);
    daemon.pipe(socket);
  }

  /** How many clients have their export. */
  get users(): number {
    return this.#joined.size;
  }

  /** Nobody new is met; who has an export keeps it. A socket's path goes. */
  hide(): void {
    this.server.close();
    for (const socket of this.#sockets) if (!this.#joined.has(socket)) socket.destroy();
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.server.close(() => resolve());
    });
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

async function tooLate(): Promise<never> {
  await sleep(HANDSHAKE_MS, undefined, { ref: false });
  throw new HandshakeError("it took too long to agree");
}

/**
 * Serves until it is closed. A file that stands at a socket's path is left alone, and so is a server there.
 * @throws {StorageError} `failed-precondition`, `invalid-argument` or `unavailable` when the address cannot be used
 */
export async function serveNamed(
  address: NamedAddress,
  directory: Directory,
  { maxConnections, log }: { readonly maxConnections: number; readonly log: Logger },
): Promise<NamedListening> {
  const named = new NamedServer(directory, maxConnections, log);
  const { server } = named;
  if (address.kind === "unix") await claimSocketPath(address.path, "NBD");
  // The file is made within `listen`, with the right permissions from its first moment.
  const before = process.umask(0o177);
  try {
    if (address.kind === "unix") server.listen(address.path);
    else server.listen({ host: address.host, port: address.port });
  } finally {
    process.umask(before);
  }
  try {
    await once(server, "listening");
  } catch (error) {
    const where = address.kind === "unix" ? address.path : `${address.host}:${address.port}`;
    throw new StorageError(
      "unavailable",
      `NBD cannot be served on ${where}: ${(error as Error).message}`,
      { address: where },
    );
  }
  server.on("error", (error) => log.warn({ reason: error.message }, "an NBD server failed"));
  const listening: NamedListening = {
    users: () => named.users,
    hide: () => named.hide(),
    close: () => named.close(),
  };
  if (address.kind === "unix") return listening;
  return { ...listening, port: (server.address() as AddressInfo).port };
}
