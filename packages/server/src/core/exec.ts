/**
 * The one door for external commands: an argument array, never a shell; C locale; a time limit; killed
 * with its request; input, output and error bounded; each call noted with its transaction.
 */
import { constants } from "node:os";
import { StorageError } from "@libstorage/model";
import type { ErrorData } from "@libstorage/model";
import type { Readable, Writable } from "node:stream";
import { openInput, openOutput } from "./command-socket.js";
import type { CommandSocket } from "./command-socket.js";
import { askKernel } from "./kernel-call.js";
import type { KernelCall } from "./kernel-call.js";
import type { Logger } from "./log.js";
import { NO_FAULTS } from "./faults.js";
import type { FaultPlan } from "./faults.js";
import { startCommand } from "./spawner-link.js";
import type { Watch } from "./spawner-link.js";
import { MAX_OUTPUT_BYTES } from "./spawner-messages.js";
import type { Command, Ending, Program } from "./spawner-messages.js";

/** One command that ran, as the journal keeps it. */
export interface CommandRun {
  readonly file: string;
  readonly args: readonly string[];
  /** -1 when it did not end by itself. */
  readonly exitCode: number;
  readonly ms: number;
}

export interface ExecOptions {
  /** Given to the command's standard input, which is empty otherwise. */
  readonly input?: string;
  /** Default 60,000. */
  readonly timeoutMs?: number;
  /** Variables beside those of the server. */
  readonly env?: Readonly<Record<string, string>>;
  /** Called with the process id once the command runs, to watch its progress. */
  readonly onStart?: (pid: number) => void;
  /** Called with pieces of its standard output as they come, to watch its progress. */
  readonly onOutput?: (text: string) => void;
  /**
   * Reads the standard output of the command as through a pipe; the answered output is that of this one.
   * They are ended together, and the failure of either is a failure.
   */
  readonly into?: Program;
  /** What its standard input is, to the end; when that fails, the command has failed with its error. */
  readonly from?: Readable;
  /** Where its standard output goes, as fast as that takes it, instead of into the answer. It is left open. */
  readonly to?: Writable;
  /**
   * Does the same without a process, where it can, and then all that the command would have said is left out.
   * When it is refused, the command is run, which can do more and says why it cannot. Of several, all but the last may
   * be done twice then.
   */
  readonly inKernel?: readonly KernelCall[];
}

export interface ExecResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** @throws {CommandError} when it exits with another code than 0, hangs, or is not installed */
export type Exec = (
  file: string,
  args: readonly string[],
  signal: AbortSignal,
  options?: ExecOptions,
) => Promise<ExecResult>;

/** A command that did not succeed. Its message names the command, its exit code and its last words. */
export class CommandError extends StorageError {
  readonly exitCode: number;
  readonly stderr: string;
  /** Some tools report although they exit with another code than 0. */
  readonly stdout: string;
  /** Whether the program is not there at all. */
  readonly isMissing: boolean;

  constructor(file: string, args: readonly string[], ending: Ending, ended?: Ended) {
    const { stderr, exitCode = -1 } = ending;
    const lastLines = stderr.trim().split("\n").slice(-5).join("\n");
    super(
      ended ?? (ending.isLost === true ? "unavailable" : "internal"),
      describe(file, ending, lastLines, ended),
      { command: [file, ...args].join(" "), exitCode, stderr: lastLines } satisfies ErrorData,
    );
    this.exitCode = exitCode;
    this.stderr = stderr;
    this.stdout = ending.stdout;
    this.isMissing = ending.code === "ENOENT";
  }
}

/** Why the door ended a command. */
type Ended = "cancelled" | "deadline-exceeded";

function describe(file: string, ending: Ending, lastLines: string, ended?: Ended): string {
  if (ending.code === "ENOENT") return `${file} is not installed on this host`;
  if (ending.code !== undefined) return `${file} could not be started: ${ending.message}`;
  if (ended === "deadline-exceeded")
    return `${file} did not end within its time limit and was killed`;
  if (ended === "cancelled") return `${file} was stopped because its request was cancelled`;
  if (ending.isTooMuch === true)
    return `${file} was stopped because it gave more than ${MAX_OUTPUT_BYTES} bytes of output`;
  if (ending.isLost === true)
    return `${file} was stopped because the server's process that starts commands has ended; try again`;
  const said = lastLines === "" ? "" : `: ${lastLines}`;
  const how =
    ending.exitCode === undefined
      ? `was ended by ${ending.signal ?? "the system"}`
      : `failed with exit code ${ending.exitCode}`;
  return `${file} ${how}${said}`;
}

const DEFAULT_TIMEOUT_MS = 60_000;

const DONE = { exitCode: 0, stdout: "", stderr: "" };

export interface ExecDoor {
  readonly log: Logger;
  readonly faults?: FaultPlan;
  /** Told of every command that ended. */
  readonly onRun?: (run: CommandRun) => void;
}

export function openExec({ log, faults = NO_FAULTS, onRun }: ExecDoor): Exec {
  return async (file, args, signal, options = {}) => {
    const started = performance.now();
    const note = (program: Program, { exitCode = -1 }: Ending): void => {
      const { file: name, args: given } = program;
      const ms = Math.round(performance.now() - started);
      const run = { file: name, args: given, exitCode, ms };
      onRun?.(run);
      log.debug(run, "command");
    };
    const { input, env, onStart, onOutput, into, from, to, inKernel = [] } = options;
    return passAll(faults, [{ file, args }, ...(into ? [into] : [])], signal, async () => {
      checkWanted(file, signal);
      if (inKernel.length > 0 && (await askKernel(inKernel))) {
        note({ file, args }, DONE);
        return DONE;
      }
      checkWanted(file, signal);
      const timeout = AbortSignal.timeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
      const command = {
        file,
        args,
        ...(into !== undefined && { into }),
        ...(input !== undefined && { input }),
        ...(env !== undefined && { env }),
        ...(onOutput !== undefined && { isWatched: true as const }),
      };
      const watch = { onStart, onOutput };
      const until = AbortSignal.any([signal, timeout]);
      const ending =
        from === undefined && to === undefined
          ? await endedBy(until, command, watch)
          : await endedWithStreams(until, command, watch, { from, to });
      note({ file, args }, ending);
      if (into !== undefined && ending.into !== undefined) note(into, ending.into);
      const last = ending.into ?? ending;
      if (ending.exitCode === 0 && last.exitCode === 0)
        return { stdout: last.stdout, stderr: last.stderr };
      const ended = signal.aborted
        ? "cancelled"
        : timeout.aborted
          ? "deadline-exceeded"
          : undefined;
      if (into !== undefined && ending.into !== undefined && isFaultOfReader(ending, ending.into))
        throw new CommandError(into.file, into.args, ending.into, ended);
      throw new CommandError(file, args, ending, ended);
    });
  };
}

/** @throws {StorageError} `cancelled` */
function checkWanted(file: string, { aborted, reason }: AbortSignal): void {
  if (!aborted) return;
  const text = `${file} was not started because its request was cancelled`;
  throw new StorageError("cancelled", text, {}, { cause: reason });
}

interface Streams {
  readonly from: Readable | undefined;
  readonly to: Writable | undefined;
}

/**
 * Runs a command whose bytes pass through this process. It has ended when they have passed, too.
 * @throws what a stream failed with, unless the command has failed before
 */
async function endedWithStreams(
  signal: AbortSignal,
  command: Command,
  watch: Watch,
  { from, to }: Streams,
): Promise<Ending> {
  const input = from && (await openInput(from));
  const output = to && (await openOutput(to));
  const broken = new AbortController();
  const sockets: readonly CommandSocket[] = [input, output].filter((one) => one !== undefined);
  for (const { passed } of sockets) passed.catch((error: unknown) => broken.abort(error));
  try {
    const joined = {
      ...command,
      ...(input !== undefined && { inputSocket: input.path }),
      ...(output !== undefined && { outputSocket: output.path }),
    };
    const ending = await endedBy(AbortSignal.any([signal, broken.signal]), joined, watch);
    // A command that fails by itself leaves bytes behind, so that its streams fail too, without words of ours.
    const cause = [from?.errored, to?.errored].find((error) => error instanceof StorageError);
    if (signal.aborted || (ending.exitCode !== 0 && cause === undefined)) return ending;
    if (cause !== undefined) throw cause;
    for (const { passed } of sockets)
      await passed.catch((error: unknown) => leftBehind(command, error));
    return ending;
  } finally {
    for (const socket of sockets) socket.close();
  }
}

function leftBehind({ file }: Command, cause: unknown): never {
  throw new StorageError("internal", `${file} did not take all of its bytes`, {}, { cause });
}

/** Each of joined commands is a point at which something may go wrong. */
function passAll<T>(
  faults: FaultPlan,
  [first, ...more]: readonly Program[],
  signal: AbortSignal,
  act: () => Promise<T>,
): Promise<T> {
  if (first === undefined) return act();
  const what = [first.file, ...first.args].join(" ");
  return faults.pass({ door: "exec", what }, signal, () => passAll(faults, more, signal, act));
}

const { SIGPIPE } = constants.signals;

/** Of two joined commands that failed, one mostly did so because the other one had. */
function isFaultOfReader(writer: Ending, reader: Ending): boolean {
  if (reader.exitCode === 0) return false;
  const { exitCode, signal, stderr } = writer;
  // What joins them is a socket, which is reset when its reader leaves something unread.
  const hasSaidSo = /Broken pipe|Connection reset by peer/.test(stderr);
  // A shell exits with 128 and the number of the signal that its last command died of.
  const isSignaled = signal === "SIGPIPE" || signal === "SIGTERM" || exitCode === 128 + SIGPIPE;
  const isCutOff = isSignaled || hasSaidSo;
  return exitCode === 0 || isCutOff;
}

/** Runs a command to its end, which comes early when the signal is aborted. */
async function endedBy(signal: AbortSignal, command: Command, watch: Watch): Promise<Ending> {
  const started = startCommand(command, watch);
  const end = (): void => started.end();
  signal.addEventListener("abort", end, { once: true });
  try {
    return await started.ending;
  } finally {
    signal.removeEventListener("abort", end);
  }
}
