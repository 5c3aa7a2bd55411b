/** QEMU's own control channel. @see https://www.qemu.org/docs/master/interop/qmp-spec.html */
import type { Socket } from "node:net";
import { within } from "./limit.js";
import { onLines } from "./lines.js";

interface Reply {
  readonly id?: number;
  readonly QMP?: object;
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

interface Waiting {
  resolve(answer: unknown): void;
  reject(error: Error): void;
}

export class Qmp {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("close", () => {
      for (const waiting of this.#waiting.values()) waiting.reject(new Error("qemu has ended"));
      this.#waiting.clear();
    });
    onLines(socket, (line) => this.#receive(JSON.parse(line) as Reply));
    // Commands are refused until this one; QEMU takes them in order.
    this.ask("qmp_capabilities").catch(() => {});
  }

  async ask(execute: string, args?: object): Promise<unknown> {
    const id = this.#next++;
    const answer = new Promise<unknown>((resolve, reject) =>
      this.#waiting.set(id, { resolve, reject }),
    );
    this.#socket.write(`${JSON.stringify({ execute, arguments: args, id })}\n`);
    return within(30_000, answer, () => `qemu's answer to ${execute}`);
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(reply: Reply): void {
    if (reply.id === undefined) return;
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (reply.error !== undefined) waiting?.reject(new Error(`qemu: ${reply.error.desc}`));
    else waiting?.resolve(reply.return);
  }
}
