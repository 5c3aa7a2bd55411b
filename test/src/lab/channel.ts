/** The outside's end of the agent in a lab machine, `test/lab/agent.mjs`. */
import type { Socket } from "node:net";
import { within } from "./limit.js";
import { onLines } from "./lines.js";

export interface CommandOptions {
  /** Default 120,000. At its end the command and all it started are killed. */
  readonly limitMs?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Default `/root`. */
  readonly cwd?: string;
  /** What it reads on standard input; without, that is at its end at once. */
  readonly input?: string | Buffer;
  /** Default false. Leaves standard input open for `LabProcess.write`. */
  readonly keepsInput?: boolean;
}

export interface CommandResult {
  /** Null when a signal ended it. */
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface FromAgent {
  readonly id?: number;
  readonly ready?: true;
  readonly pid?: number;
  readonly stdout?: string;
  readonly stderr?: string;
  readonly exit?: { readonly code: number | null; readonly signal: string | null };
}

/** A command that runs in a machine. */
export class LabProcess {
  readonly command: string;
  /** In the machine. */
  readonly pid: Promise<number>;
  /** Rejects when the machine is gone before the command has ended. */
  readonly ended: Promise<CommandResult>;
  readonly #post: (message: object) => void;
  readonly #chunks: Record<"stdout" | "stderr", Buffer[]> = { stdout: [], stderr: [] };
  readonly #watchers = new Set<() => void>();
  #setPid!: (pid: number) => void;
  #end!: (result: CommandResult) => void;
  #fail!: (error: Error) => void;

  constructor(command: string, post: (message: object) => void) {
    this.command = command;
    this.#post = post;
    this.pid = new Promise((resolve) => (this.#setPid = resolve));
    this.ended = new Promise((resolve, reject) => {
      this.#end = resolve;
      this.#fail = reject;
    });
    // Whoever does not wait for the end must not be killed by its error.
    this.ended.catch(() => {});
  }

  get stdout(): string {
    return Buffer.concat(this.#chunks.stdout).toString();
  }

  get stderr(): string {
    return Buffer.concat(this.#chunks.stderr).toString();
  }

  /** To its standard input. */
  write(text: string): void {
    this.#post({ op: "input", data: Buffer.from(text).toString("base64") });
  }

  /** To the command and all it started. */
  signal(signal: NodeJS.Signals): void {
    this.#post({ op: "signal", signal });
  }

  /** Waits until its output so far, of both kinds, matches. */
  async says(pattern: RegExp, limitMs = 60_000): Promise<RegExpExecArray> {
    let check!: () => void;
    const found = new Promise<RegExpExecArray>((resolve, reject) => {
      check = () => {
        const match = pattern.exec(this.stdout) ?? pattern.exec(this.stderr);
        if (match !== null) resolve(match);
      };
      this.ended.then(
        ({ code, stderr }) =>
          reject(
            new Error(`${this.command} ended with ${code} before it said ${pattern}: ${stderr}`),
          ),
        reject,
      );
    });
    this.#watchers.add(check);
    check();
    try {
      return await within(
        limitMs,
        found,
        () => `${this.command} to say ${pattern}: ${this.stderr}`,
      );
    } finally {
      this.#watchers.delete(check);
    }
  }

  /** Calls back with each line of standard output, from the first one. */
  onLine(callback: (line: string) => void): void {
    let done = 0;
    const check = (): void => {
      const text = this.stdout;
      for (let end = text.indexOf("\n", done); end !== -1; end = text.indexOf("\n", done)) {
        callback(text.slice(done, end));
        done = end + 1;
      }
    };
    this.#watchers.add(check);
    check();
  }

  receive(message: FromAgent): void {
    if (message.pid !== undefined) this.#setPid(message.pid);
    for (const name of ["stdout", "stderr"] as const) {
      const data = message[name];
      if (data !== undefined) this.#chunks[name].push(Buffer.from(data, "base64"));
    }
    for (const check of this.#watchers) check();
    if (message.exit !== undefined)
      this.#end({ ...message.exit, stdout: this.stdout, stderr: this.stderr });
  }

  lost(error: Error): void {
    this.#fail(error);
  }
}

export class AgentChannel {
  readonly ready: Promise<void>;
  readonly #socket: Socket;
  readonly #processes = new Map<number, LabProcess>();
  #lost: Error | undefined;
  #next = 0;

  constructor(socket: Socket) {
    this.#socket = socket;
    let isReady!: () => void;
    this.ready = new Promise((resolve) => (isReady = resolve));
    onLines(socket, (line) => {
      const message = JSON.parse(line) as FromAgent;
      if (message.ready === true) isReady();
      if (message.id === undefined) return;
      const process = this.#processes.get(message.id);
      process?.receive(message);
      if (message.exit !== undefined) this.#processes.delete(message.id);
    });
  }

  start(command: string, options: CommandOptions = {}): LabProcess {
    if (this.#lost !== undefined) throw this.#lost;
    const id = this.#next++;
    const process = new LabProcess(command, (message) => this.#post({ id, ...message }));
    this.#processes.set(id, process);
    const { env, cwd, input, keepsInput = false } = options;
    this.#post({ id, op: "start", command, env, cwd });
    const data = input === undefined ? undefined : Buffer.from(input).toString("base64");
    this.#post({ id, op: "input", data, end: !keepsInput });
    return process;
  }

  /** Nothing more can be asked; what waits is told why. */
  lose(error: Error): void {
    this.#lost = error;
    for (const process of this.#processes.values()) process.lost(error);
    this.#processes.clear();
    this.#socket.destroy();
  }

  #post(message: object): void {
    if (this.#lost === undefined) this.#socket.write(`${JSON.stringify(message)}\n`);
  }
}
