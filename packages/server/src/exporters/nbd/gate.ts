/**
 * Where NBD is served over TCP. Each client is held here until it has named an export that it may have; then
 * its bytes go to and from the socket of that export's storage daemon. The daemon's own TCP server would answer
 * with delays of 40 ms (no TCP_NODELAY), know one list of clients for all exports, and not tell who is there.
 */
import { createServer, connect, isIP } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import type { Logger } from "../../core/log.js";
import { agree } from "./agreement.js";
import type { Listen, NbdConfig } from "./config.js";
import {
  HandshakeError,
  Inlet,
  OPTION,
  REFUSAL,
  acknowledged,
  catchUp,
  exportOf,
  greeting,
  readFlags,
  readOption,
  refused,
} from "./handshake.js";
import type { Option } from "./handshake.js";
import { openTls } from "./tls.js";

/** A client that does not get on is not waited for. */
const HANDSHAKE_MS = 15_000;
const MAX_CLIENTS = 4096;

/** An export that can be reached through the gate. */
export interface GateExport {
  readonly volumeID: string;
  /** Whose export it is. */
  readonly instanceID: string;
  /** The daemon's socket. */
  readonly socket: string;
  /**
   * Names of which the client's certificate or key has to have one, and addresses for connections without TLS; in
   * lower case. Distinguished names as they are. Undefined: whoever is trusted at all; without TLS this host.
   */
  readonly clients: readonly string[] | undefined;
  /** 0: any number. */
  readonly maxConnections: number;
}

/** A client that has its export. */
interface Connection {
  readonly exportName: string;
  readonly volumeID: string;
  readonly instanceID: string;
  readonly peer: string;
  readonly address: string;
  end(): void;
  readonly ended: Promise<void>;
}

interface Client {
  readonly stream: Socket;
  readonly inlet: Inlet;
  /** Of its certificate or key; none without TLS. */
  readonly names: readonly string[] | undefined;
  readonly peer: string;
}

export class Gate {
  readonly #config: NbdConfig;
  readonly #log: Logger;
  readonly #server: Server;
  readonly #exports = new Map<string, GateExport>();
  readonly #connections = new Set<Connection>();
  readonly #sockets = new Set<Socket>();

  private constructor(config: NbdConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
    // Delays of small packets would stall every request.
    this.#server = createServer({ noDelay: true, keepAlive: true }, (socket) => this.#meet(socket));
    this.#server.maxConnections = MAX_CLIENTS;
  }

  /** @throws {StorageError} `failed-precondition` when the address cannot be used */
  static async open(config: NbdConfig, log: Logger): Promise<Gate> {
    const gate = new Gate(config, log);
    const { host, port } = config.listen;
    try {
      gate.#server.listen({ host, port });
      await once(gate.#server, "listening");
    } catch (error) {
      throw new StorageError(
        "failed-precondition",
        `NBD cannot be served on ${host}:${port}: ${(error as Error).message}; set another "listen"`,
        { listen: `${host}:${port}` },
      );
    }
    // Others keep the process running.
    gate.#server.unref();
    return gate;
  }

  /** What holders are told to connect to. */
  get address(): Listen {
    if (this.#config.address !== undefined) return this.#config.address;
    const { port } = this.#server.address() as AddressInfo;
    return { host: this.#config.listen.host, port };
  }

  get #hasTls(): boolean {
    return this.#config.tls !== undefined || this.#config.pskFile !== undefined;
  }

  /** Also anew, with other clients; who is in stays. */
  admit(name: string, door: GateExport): void {
    this.#exports.set(name, door);
  }

  /** Nobody gets in through this name any more; who is in stays. */
  hide(name: string): void {
    this.#exports.delete(name);
  }

  /** Nobody gets in through this name any more, and who is in is dropped. */
  async expel(name: string): Promise<void> {
    this.hide(name);
    const mine = [...this.#connections].filter(({ exportName }) => exportName === name);
    for (const connection of mine) connection.end();
    await Promise.all(mine.map(({ ended }) => ended));
  }

  get connections(): readonly Connection[] {
    return [...this.#connections];
  }

  async close(): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all([...this.#connections].map(({ ended }) => ended));
  }

  #meet(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", () => {});
    const address = plain(socket.remoteAddress ?? "");
    void Promise.race([this.#serve(socket, address), tooLate()]).catch((error: unknown) => {
      this.#log.info({ address, reason: (error as Error).message }, "NBD client turned away");
      socket.destroy();
    });
  }

  async #serve(socket: Socket, address: string): Promise<void> {
    socket.write(greeting());
    const inlet = new Inlet(socket);
    const flags = await readFlags(inlet);
    let client: Client = { stream: socket, inlet, names: undefined, peer: address };
    const accepted: Option[] = [];
    for (;;) {
      const option = await readOption(client.inlet);
      const { stream } = client;
      const isBare = this.#hasTls && client.names === undefined;
      if (option.type === OPTION.abort) {
        stream.end(acknowledged(option));
        return;
      }
      if (option.type === OPTION.startTls) {
        if (!this.#hasTls || client.names !== undefined)
          stream.write(refused(option, REFUSAL.policy, "this server has no TLS to begin"));
        else client = await this.#secure(client, option);
      } else if (isBare && option.type === OPTION.exportName)
        throw new HandshakeError("it asks for an export without TLS");
      else if (isBare) stream.write(refused(option, REFUSAL.tlsRequired, "TLS has to begin first"));
      else if (option.type === OPTION.structuredReply) {
        accepted.push(option);
        stream.write(acknowledged(option));
      } else if (await this.#enter(client, address, flags, accepted, option)) return;
    }
  }

  /** @returns whether the client is through, or was sent away for good */
  async #enter(
    client: Client,
    address: string,
    flags: Buffer,
    accepted: readonly Option[],
    option: Option,
  ): Promise<boolean> {
    const name = exportOf(option);
    if (name === undefined) {
      const isList = option.type === OPTION.list;
      const [code, text] = isList
        ? [REFUSAL.policy, "exports are not listed"]
        : [REFUSAL.unsupported, "this option is not known"];
      client.stream.write(refused(option, code, text));
      return false;
    }
    const door = this.#exports.get(name);
    // Who may not have it is told no more than who asks for what is not there.
    if (door === undefined || !mayEnter(door, client, address)) {
      this.#log.info({ address, peer: client.peer, export: name }, "NBD client refused");
      if (option.type === OPTION.exportName) throw new HandshakeError("no export of that name");
      client.stream.write(refused(option, REFUSAL.unknown, "no export of that name for this host"));
      return false;
    }
    const isIts = ({ exportName }: Connection): boolean => exportName === name;
    const { maxConnections } = door;
    if (maxConnections > 0 && [...this.#connections].filter(isIts).length >= maxConnections) {
      this.#log.info({ address, peer: client.peer, export: name }, "NBD client: too many");
      if (option.type === OPTION.exportName) throw new HandshakeError("too many connections");
      const text = `the export has its ${maxConnections} connections`;
      client.stream.write(refused(option, REFUSAL.policy, text));
      return false;
    }
    await this.#pass(client, address, { name, door, flags, accepted, option });
    return true;
  }

  async #secure({ stream: socket, inlet }: Client, option: Option): Promise<Client> {
    // Files may have been renewed since the last client came.
    const tls = await openTls(this.#config);
    // What was said in clear after this would be taken as said within TLS.
    if (inlet.release().length > 0) throw new HandshakeError("it goes on before TLS has begun");
    socket.write(acknowledged(option));
    const { stream, names } = await tls.secure(socket);
    stream.on("error", () => {});
    this.#sockets.add(stream);
    stream.once("close", () => this.#sockets.delete(stream));
    return { stream, inlet: new Inlet(stream), names, peer: names[0] ?? "" };
  }

  /** Joins the client to its daemon, until either goes. */
  async #pass(
    { stream, inlet, peer }: Client,
    address: string,
    {
      name,
      door,
      flags,
      accepted,
      option,
    }: {
      name: string;
      door: GateExport;
      flags: Buffer;
      accepted: readonly Option[];
      option: Option;
    },
  ): Promise<void> {
    const daemon = connect(door.socket);
    daemon.on("error", () => {});
    const ended = Promise.all([closed(stream), closed(daemon)]).then(() => {});
    const end = (): void => {
      stream.destroy();
      daemon.destroy();
    };
    stream.once("close", end);
    daemon.once("close", end);
    const { volumeID, instanceID } = door;
    const connection = { exportName: name, volumeID, instanceID, peer, address, end, ended };
    this.#connections.add(connection);
    void ended.then(() => this.#connections.delete(connection));
    const answers = new Inlet(daemon);
    await catchUp(answers, flags, accepted);
    if (!(await agree(inlet, answers, option))) return;
    // It may have been expelled while the daemon was asked.
    if (this.#exports.get(name)?.socket !== door.socket) end();
    daemon.write(inlet.release());
    stream.write(answers.release());
    stream.pipe(daemon);
    daemon.pipe(stream);
  }
}

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else socket.once("close", () => resolve());
  });
}

async function tooLate(): Promise<never> {
  await sleep(HANDSHAKE_MS, undefined, { ref: false });
  throw new HandshakeError("it took too long to agree");
}

/** IPv4 addresses look like IPv6 ones to a socket that takes both. */
function plain(address: string): string {
  return address.startsWith("::ffff:") ? address.slice("::ffff:".length) : address;
}

export function isLoopback(address: string): boolean {
  return address === "::1" || (isIP(address) === 4 && address.startsWith("127."));
}

function mayEnter({ clients }: GateExport, { names }: Client, address: string): boolean {
  if (names !== undefined)
    return clients === undefined || names.some((one) => clients.includes(one));
  if (!isLoopback(address)) return clients?.includes(address) === true;
  // One address of loopback is as good as another.
  return clients === undefined || clients.some(isLoopback);
}
