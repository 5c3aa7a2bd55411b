/** A bare QMP client for tests: sends what it is told to, and tells what comes back. */
import { once } from "node:events";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export interface QmpMessage {
  readonly QMP?: { readonly version: object; readonly capabilities: readonly string[] };
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
  readonly timestamp?: { readonly seconds: number; readonly microseconds: number };
  readonly id?: unknown;
}

const ANSWER_MS = 60_000;

export class QmpClient {
  readonly socket: Socket;
  readonly messages: QmpMessage[] = [];
  #text = "";
  #taken = 0;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding("utf8");
    socket.on("error", () => {});
    socket.on("data", (text: string) => {
      this.#text += text;
      const lines = this.#text.split("\r\n");
      this.#text = lines.pop() ?? "";
      for (const line of lines) this.messages.push(JSON.parse(line) as QmpMessage);
    });
  }

  /** Reads the greeting. */
  static async open(path: string): Promise<QmpClient> {
    const socket = connect(path);
    await once(socket, "connect");
    const client = new QmpClient(socket);
    await client.next();
    return client;
  }

  /** With capabilities agreed on. */
  static async ready(path: string): Promise<QmpClient> {
    const client = await QmpClient.open(path);
    await client.execute("qmp_capabilities");
    return client;
  }

  get isClosed(): boolean {
    return this.socket.destroyed;
  }

  send(bytes: string | Buffer): void {
    this.socket.write(bytes);
  }

  /** The next message, events among them. */
  async next(): Promise<QmpMessage> {
    const end = Date.now() + ANSWER_MS;
    while (this.messages.length <= this.#taken) {
      if (Date.now() > end) throw new Error("no answer came");
      if (this.isClosed) throw new Error("the connection was closed");
      await sleep(2);
    }
    const message = this.messages[this.#taken];
    this.#taken += 1;
    return message ?? {};
  }

  /** The next reply; events before it are passed over. */
  async reply(): Promise<QmpMessage> {
    for (;;) {
      const message = await this.next();
      if (message.event === undefined) return message;
    }
  }

  async ask(request: object): Promise<QmpMessage> {
    this.send(`${JSON.stringify(request)}\n`);
    return this.reply();
  }

  execute(execute: string, args?: object): Promise<QmpMessage> {
    return this.ask({ execute, ...(args !== undefined && { arguments: args }) });
  }

  close(): void {
    this.socket.destroy();
  }
}
