/**
 * The spawner: a small process that starts the server's commands. A process that starts another is copied
 * first, which costs the more the larger it is, and stands still meanwhile: this one is small and has
 * nothing else to do.
 *
 * It lives as long as the channel to the server. When that closes, however the server ended, it kills what
 * still runs: a server that starts again clears up after its predecessor, and no command of that one may
 * come after it.
 */
// oxlint-disable-next-line no-restricted-imports -- here is where the commands of core/exec.ts are started
import { spawn, type ChildProcess } from "node:child_process";
import { connect, type Socket } from "node:net";
import type { Readable } from "node:stream";
import { killGroup, MAX_OUTPUT_BYTES } from "./spawner-messages.js";
import type { Command, Ending, Program, Report, Request } from "./spawner-messages.js";

/** How long a command may take to end by itself once it is asked to. */
const GRACE_MS = 2_000;

/** What is started, of a command. */
interface Start extends Omit<Command, "into" | "inputSocket" | "outputSocket"> {
  /** Its standard input, in place of `input`. */
  readonly from?: Readable | undefined;
  /** Its standard output, which then is not collected. */
  readonly to?: Socket | undefined;
  /** Whether another one reads its standard output. */
  readonly isRead?: boolean;
}

/** A command that runs. */
class Running {
  readonly #child: ChildProcess;
  readonly #stdout: Buffer[] = [];
  readonly #stderr: Buffer[] = [];
  #grace: NodeJS.Timeout | undefined;
  #isTooMuch = false;

  /** In a process group of its own, so that what it starts can be ended with it. */
  constructor(
    { file, args, input, env, isWatched, from, to, isRead = false }: Start,
    onEnd: (ending: Ending) => void,
    onOutput: (output: string) => void,
  ) {
    const child = spawn(file, args, {
      detached: true,
      ...(env !== undefined && { env: { ...process.env, ...env, LC_ALL: "C" } }),
      stdio: [from ?? (input === undefined ? "ignore" : "pipe"), to ?? "pipe", "pipe"],
    });
    this.#child = child;
    // The other one alone has its end then: when that one goes away, writing into it fails.
    from?.destroy();
    to?.destroy();
    if (!isRead) this.#collect(child.stdout, this.#stdout);
    this.#collect(child.stderr, this.#stderr);
    if (isWatched === true) child.stdout?.on("data", (chunk: Buffer) => onOutput(chunk.toString()));
    // Nobody has to read what is given.
    child.stdin?.on("error", () => {}).end(input);
    child.on("error", (error: NodeJS.ErrnoException) => {
      if (child.pid === undefined) onEnd(unstarted(error));
    });
    child.on("close", (exitCode, signal) => {
      if (child.pid === undefined) return;
      // What it started may live on without it.
      if (this.#grace !== undefined) killGroup(child.pid, "SIGKILL");
      clearTimeout(this.#grace);
      onEnd(this.#ending(exitCode, signal));
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get stdout(): Readable | null {
    return this.#child.stdout;
  }

  #collect(stream: Readable | null, into: Buffer[]): void {
    let bytes = 0;
    stream?.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= MAX_OUTPUT_BYTES) into.push(chunk);
      else if (!this.#isTooMuch) {
        this.#isTooMuch = true;
        this.end();
      }
    });
  }

  #ending(exitCode: number | null, signal: NodeJS.Signals | null): Ending {
    if (this.#isTooMuch) return { isTooMuch: true, stdout: "", stderr: "" };
    return {
      ...(exitCode !== null && { exitCode }),
      ...(signal !== null && { signal }),
      stdout: Buffer.concat(this.#stdout).toString(),
      stderr: Buffer.concat(this.#stderr).toString(),
    };
  }

  end(): void {
    const { pid } = this;
    if (pid === undefined || this.#grace !== undefined) return;
    killGroup(pid, "SIGTERM");
    this.#grace = setTimeout(() => killGroup(pid, "SIGKILL"), GRACE_MS);
  }
}

function unstarted(error: unknown): Ending {
  const { code = "unknown", message } = error as NodeJS.ErrnoException;
  return { code, message, stdout: "", stderr: "" };
}

/** Two commands that run, the standard output of the first being the standard input of the second. */
class Joined {
  readonly #first: Running;
  readonly #second: Running | undefined;
  readonly #onEnd: (ending: Ending) => void;
  #endOfFirst: Ending | undefined;
  #endOfSecond: Ending | undefined;

  constructor(
    { isWatched, into, to, ...command }: Start & { readonly into: Program },
    onEnd: (ending: Ending) => void,
    onOutput: (output: string) => void,
  ) {
    this.#onEnd = onEnd;
    this.#first = new Running(
      { ...command, isRead: true },
      (ending) => this.#ended(ending, this.#endOfSecond),
      onOutput,
    );
    const { pid, stdout } = this.#first;
    if (pid === undefined || stdout === null) return;
    try {
      this.#second = new Running(
        { ...into, from: stdout, to, ...(isWatched !== undefined && { isWatched }) },
        (ending) => this.#endedSecond(ending),
        onOutput,
      );
    } catch (error) {
      stdout.destroy();
      this.#endedSecond(unstarted(error));
    }
  }

  get pid(): number | undefined {
    return this.#first.pid;
  }

  get intoPid(): number | undefined {
    return this.#second?.pid;
  }

  #endedSecond(ending: Ending): void {
    // Nobody reads any more what the first one says, which may be busy with something else meanwhile.
    if (ending.exitCode !== 0 && this.#endOfFirst === undefined) this.#first.end();
    this.#ended(this.#endOfFirst, ending);
  }

  #ended(first: Ending | undefined, second: Ending | undefined): void {
    this.#endOfFirst = first;
    this.#endOfSecond = second;
    if (first === undefined) return;
    // The second one is not started when the first cannot be.
    if (first.code !== undefined) this.#onEnd(first);
    else if (second !== undefined) this.#onEnd({ ...first, into: second });
  }

  end(): void {
    this.#first.end();
    this.#second?.end();
  }
}

const running = new Map<number, Running | Joined>();
/** Commands that wait for their sockets, and whether they are still wanted. */
const connecting = new Map<number, { isWanted: boolean }>();

/** Connected and not read. */
function socketAt(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    // What comes is for the command.
    socket.pause();
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      socket.on("error", () => {});
      resolve(socket);
    });
  });
}

async function startConnected(id: number, command: Command): Promise<void> {
  const { inputSocket, outputSocket, ...rest } = command;
  const wish = { isWanted: true };
  connecting.set(id, wish);
  const sockets: Socket[] = [];
  const at = async (path: string | undefined): Promise<Socket | undefined> => {
    if (path === undefined) return undefined;
    const socket = await socketAt(path);
    sockets.push(socket);
    return socket;
  };
  try {
    const [from, to] = [await at(inputSocket), await at(outputSocket)];
    if (!wish.isWanted) throw new Error("it was ended before it was started");
    start(id, { ...rest, from, to });
  } catch (error) {
    for (const socket of sockets) socket.destroy();
    report({ id, ending: unstarted(error) });
  } finally {
    connecting.delete(id);
  }
}

function report(what: Report): void {
  // A server that is gone needs no report.
  process.send?.(what, () => {});
}

function start(id: number, command: Command & Pick<Start, "from" | "to">): void {
  const onEnd = (ending: Ending): void => {
    running.delete(id);
    report({ id, ending });
  };
  const onOutput = (output: string): void => report({ id, output });
  const { into } = command;
  try {
    const one =
      into === undefined
        ? new Running(command, onEnd, onOutput)
        : new Joined({ ...command, into }, onEnd, onOutput);
    const [pid, intoPid] = pidsOf(one);
    if (pid === undefined) return;
    running.set(id, one);
    report({ id, pid, ...(intoPid !== undefined && { intoPid }) });
  } catch (error) {
    // Such as an argument with a NUL in it.
    onEnd(unstarted(error));
  }
}

function pidsOf(one: Running | Joined): readonly (number | undefined)[] {
  return one instanceof Joined ? [one.pid, one.intoPid] : [one.pid];
}

process.on("message", (request: Request) => {
  if (!("start" in request)) {
    running.get(request.id)?.end();
    const wish = connecting.get(request.id);
    if (wish !== undefined) wish.isWanted = false;
  } else if (request.start.inputSocket ?? request.start.outputSocket)
    void startConnected(request.id, request.start);
  else start(request.id, request.start);
});
process.on("disconnect", () => {
  for (const one of running.values())
    for (const pid of pidsOf(one)) if (pid !== undefined) killGroup(pid, "SIGKILL");
  process.exit();
});
// Whoever stops the service or the terminal means the server, which still needs commands to end in order.
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => {});
