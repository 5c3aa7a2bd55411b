/**
 * The one door for external commands: an argument array, never a shell; C locale; a time limit; killed
 * with its request; input, output and error bounded; each call noted with its transaction.
 */
import { execa, ExecaError } from "execa";
import { StorageError } from "@libstorage/model";
import type { ErrorData } from "@libstorage/model";
import type { Logger } from "./log.js";
import { NO_FAULTS } from "./faults.js";
import type { FaultPlan } from "./faults.js";

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
  /** Whether the program is not there at all. */
  readonly isMissing: boolean;

  constructor(error: ExecaError, file: string, args: readonly string[], ended?: Ended) {
    const stderr = typeof error.stderr === "string" ? error.stderr : "";
    const lastLines = stderr.trim().split("\n").slice(-5).join("\n");
    const exitCode = error.exitCode ?? -1;
    const isMissing = error.code === "ENOENT";
    super(
      ended ?? "internal",
      describe(file, error, isMissing, lastLines, ended),
      { command: [file, ...args].join(" "), exitCode, stderr: lastLines } satisfies ErrorData,
      { cause: error },
    );
    this.exitCode = exitCode;
    this.stderr = stderr;
    this.isMissing = isMissing;
  }
}

/** Why the door ended a command. */
type Ended = "cancelled" | "deadline-exceeded";

function describe(
  file: string,
  error: ExecaError,
  isMissing: boolean,
  lastLines: string,
  ended: Ended | undefined,
): string {
  if (isMissing) return `${file} is not installed on this host`;
  if (ended === "deadline-exceeded")
    return `${file} did not end within its time limit and was killed`;
  if (ended === "cancelled") return `${file} was stopped because its request was cancelled`;
  if (error.isMaxBuffer)
    return `${file} was stopped because it gave more than ${MAX_OUTPUT_CHARS} characters of output`;
  const said = lastLines === "" ? "" : `: ${lastLines}`;
  const how =
    error.exitCode === undefined
      ? `was ended by ${error.signal ?? "the system"}`
      : `failed with exit code ${error.exitCode}`;
  return `${file} ${how}${said}`;
}

const MAX_OUTPUT_CHARS = 64 * 1024 * 1024;

/** How long a command may take to end by itself once it is asked to. */
const GRACE_MS = 2_000;

const DEFAULT_TIMEOUT_MS = 60_000;

export interface ExecDoor {
  readonly log: Logger;
  readonly faults?: FaultPlan;
  /** Told of every command that ended. */
  readonly onRun?: (run: CommandRun) => void;
}

export function openExec({ log, faults = NO_FAULTS, onRun }: ExecDoor): Exec {
  return async (file, args, signal, options = {}) => {
    const started = performance.now();
    const note = (exitCode: number): void => {
      const run = { file, args, exitCode, ms: Math.round(performance.now() - started) };
      onRun?.(run);
      log.debug(run, "command");
    };
    return faults.pass({ door: "exec", what: [file, ...args].join(" ") }, signal, async () => {
      if (signal.aborted)
        throw new StorageError(
          "cancelled",
          `${file} was not started because its request was cancelled`,
          {},
          { cause: signal.reason },
        );
      const timeout = AbortSignal.timeout(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
      const child = start(file, args, options);
      const release = endWith(child.pid, AbortSignal.any([signal, timeout]));
      try {
        if (child.pid !== undefined) options.onStart?.(child.pid);
        const { stdout, stderr } = await child;
        note(0);
        return { stdout, stderr };
      } catch (error) {
        if (!(error instanceof ExecaError)) throw error;
        note(error.exitCode ?? -1);
        const ended = signal.aborted
          ? "cancelled"
          : timeout.aborted
            ? "deadline-exceeded"
            : undefined;
        throw new CommandError(error, file, args, ended);
      } finally {
        release();
      }
    });
  };
}

/** In a process group of its own, so that what it starts can be ended with it. */
function start(file: string, args: readonly string[], { input, env }: ExecOptions) {
  return execa(file, args, {
    detached: true,
    env: { ...env, LC_ALL: "C" },
    stdin: input === undefined ? "ignore" : "pipe",
    ...(input !== undefined && { input }),
    maxBuffer: MAX_OUTPUT_CHARS,
    stripFinalNewline: false,
  });
}

/** Groups that run now: they end with this process when it exits in order. */
const groups = new Set<number>();
process.once("exit", () => {
  for (const group of groups) killGroup(group, "SIGKILL");
});

function killGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch {
    // All of it has ended already.
  }
}

/** Ends a command and all it has started when the signal is aborted. @returns to be called at its end */
function endWith(group: number | undefined, signal: AbortSignal): () => void {
  if (group === undefined) return () => {};
  let timer: NodeJS.Timeout | undefined;
  const end = (): void => {
    killGroup(group, "SIGTERM");
    timer = setTimeout(() => killGroup(group, "SIGKILL"), GRACE_MS);
  };
  groups.add(group);
  signal.addEventListener("abort", end, { once: true });
  return () => {
    groups.delete(group);
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    // What it started may live on without it.
    if (signal.aborted) killGroup(group, "SIGKILL");
  };
}
