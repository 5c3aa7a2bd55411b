/**
 * A client of QMP, the protocol in which QEMU's programs are driven: JSON, a message a line, over a Unix
 * socket. Replies come in the order of their requests; events come at any time, most of them before the
 * reply of the command that they are about. @see QEMU, docs/interop/qmp-spec.txt
 */
import { connect } from "node:net";
import type { Socket } from "node:net";
import { StorageError } from "@libstorage/model";

/** Far beyond an honest message; reading a longer one would take long. */
const MAX_LINE_CHARS = 16 * 1024 * 1024;
const GREETING_MS = 3_000;
const REPLY_MS = 30_000;

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

interface Message {
  readonly QMP?: unknown;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly id?: number;
  readonly event?: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** What the daemon refused. Its text is all that tells one reason from another. */
export class QmpError extends StorageError {
  readonly desc: string;

  constructor(command: string, { class: kind, desc }: { class: string; desc: string }) {
    super(
      kind === "CommandNotFound" ? "unimplemented" : "internal",
      `the storage daemon refused ${command}: ${desc}`,
      { command, class: kind, desc },
    );
    this.desc = desc;
  }
}

interface Waiting {
  readonly command: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class Qmp {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #onGreeting: (qmp: Qmp) => void;
  #text = "";
  #last = 0;
  /** Resolves when the daemon is gone, or does not speak QMP any more. */
  readonly closed: Promise<void>;

  private constructor(socket: Socket, onGreeting: (qmp: Qmp) => void) {
    this.#socket = socket;
    this.#onGreeting = onGreeting;
    socket.setEncoding("utf8");
    socket.on("data", (text) => this.#read(String(text)));
    socket.on("error", () => {});
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.#fail();
        resolve();
      });
    });
  }

  /**
   * Connects and agrees on the protocol. One monitor serves one client: a second gets no greeting.
   * @throws {StorageError} `unavailable`
   */
  static async connect(path: string, greetingMs: number = GREETING_MS): Promise<Qmp> {
    const socket = connect(path);
    let timer: NodeJS.Timeout | undefined;
    try {
      const qmp = await new Promise<Qmp>((resolve, reject) => {
        const fail = (why: string): void =>
          reject(new StorageError("unavailable", `no storage daemon answers at ${path}: ${why}`));
        timer = setTimeout(
          () => fail("it sends no greeting; another client drives it"),
          greetingMs,
        );
        socket.once("error", ({ message }) => fail(message));
        socket.once("close", () => fail("it closed the connection"));
        // It keeps itself by the socket's listeners.
        void new Qmp(socket, resolve).closed;
      });
      await qmp.execute("qmp_capabilities");
      return qmp;
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #read(text: string): void {
    this.#text += text;
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end === -1) break;
      const line = this.#text.slice(0, end).trim();
      this.#text = this.#text.slice(end + 1);
      if (line !== "") this.#handle(line);
    }
    if (this.#text.length > MAX_LINE_CHARS) this.#socket.destroy();
  }

  #handle(line: string): void {
    let message: Message;
    try {
      message = JSON.parse(line) as Message;
    } catch {
      this.#socket.destroy();
      return;
    }
    if (message.QMP !== undefined) this.#onGreeting(this);
    else if (message.event !== undefined) {
      const event = { event: message.event, data: message.data ?? {} };
      for (const listener of this.#listeners) listener(event);
    } else if (message.id !== undefined) this.#answer(message.id, message);
  }

  #answer(id: number, { error, return: value }: Message): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve(value);
    else waiting?.reject(new QmpError(waiting.command, error));
  }

  #fail(): void {
    for (const { command, reject } of this.#waiting.values())
      reject(
        new StorageError(
          "unavailable",
          `the storage daemon ended before it answered ${command}; try again`,
          { command },
        ),
      );
    this.#waiting.clear();
  }

  /** @throws {QmpError}; {StorageError} `unavailable` when it ends, `deadline-exceeded` when it hangs */
  execute(command: string, args?: object, timeoutMs: number = REPLY_MS): Promise<unknown> {
    this.#last += 1;
    const id = this.#last;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        const text = `the storage daemon did not answer ${command} within ${timeoutMs} ms`;
        reject(new StorageError("deadline-exceeded", text, { command }));
      }, timeoutMs);
      const done =
        <T>(settle: (value: T) => void) =>
        (value: T): void => {
          clearTimeout(timer);
          settle(value);
        };
      this.#waiting.set(id, { command, resolve: done(resolve), reject: done(reject) });
      if (this.#socket.destroyed) this.#fail();
      else {
        const request = { execute: command, ...(args !== undefined && { arguments: args }), id };
        this.#socket.write(`${JSON.stringify(request)}\n`);
      }
    });
  }

  /** Resolves to true with the first event that fits from now on, and to false when none comes in time. */
  awaits(fits: (event: QmpEvent) => boolean, timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (isThere: boolean): void => {
        clearTimeout(timer);
        this.#listeners.delete(listener);
        resolve(isThere);
      };
      const listener = (event: QmpEvent): void => {
        if (fits(event)) end(true);
      };
      const timer = setTimeout(() => end(false), timeoutMs);
      this.#listeners.add(listener);
      void this.closed.then(() => end(false));
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}
