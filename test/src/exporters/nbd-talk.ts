/** A client that begins NBD, option by option. @see https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md */
import { connect } from "node:net";
import type { Socket } from "node:net";
import { once } from "node:events";

const [LIST, INFO, GO] = [3, 6, 7];
const ACK = 1;
const REFUSED = 0x8000_0000;

export class NbdTalk {
  readonly #socket: Socket;
  #unread = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  static open(host: string, port: number): Promise<NbdTalk> {
    return NbdTalk.#over(connect({ host, port }));
  }

  /** Over a Unix socket. */
  static at(path: string): Promise<NbdTalk> {
    return NbdTalk.#over(connect(path));
  }

  static async #over(socket: Socket): Promise<NbdTalk> {
    const talk = new NbdTalk(socket);
    await once(socket, "connect");
    await talk.#take(18);
    socket.write(Buffer.from([0, 0, 0, 3]));
    return talk;
  }

  async #take(bytes: number): Promise<Buffer> {
    while (this.#unread.length < bytes) {
      const piece = this.#socket.read() as Buffer | null;
      if (piece !== null) this.#unread = Buffer.concat([this.#unread, piece]);
      else await once(this.#socket, "readable");
    }
    const taken = this.#unread.subarray(0, bytes);
    this.#unread = this.#unread.subarray(bytes);
    return taken;
  }

  async #ask(type: number, data: Buffer): Promise<"ack" | "refused"> {
    const head = Buffer.alloc(16);
    head.write("IHAVEOPT");
    head.writeUInt32BE(type, 8);
    head.writeUInt32BE(data.length, 12);
    this.#socket.write(Buffer.concat([head, data]));
    for (;;) {
      const reply = await this.#take(20);
      await this.#take(reply.readUInt32BE(16));
      const code = reply.readUInt32BE(12);
      if (code === ACK) return "ack";
      if (code >= REFUSED) return "refused";
    }
  }

  #named(type: number, name: string): Promise<"ack" | "refused"> {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(name.length);
    return this.#ask(type, Buffer.concat([length, Buffer.from(name), Buffer.alloc(2)]));
  }

  info(name: string): Promise<"ack" | "refused"> {
    return this.#named(INFO, name);
  }

  go(name: string): Promise<"ack" | "refused"> {
    return this.#named(GO, name);
  }

  list(): Promise<"ack" | "refused"> {
    return this.#ask(LIST, Buffer.alloc(0));
  }

  end(): void {
    this.#socket.destroy();
  }
}
