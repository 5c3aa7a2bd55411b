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

  constructor(error: ExecaError, file: string, args: readonly string[], cancelled: boolean) {
    const stderr = typeof error.stderr === "string" ? error.stderr : "";
    const lastLines = stderr.trim().split("\n").slice(-5).join("\n");
    const exitCode = error.exitCode ?? -1;
    const isMissing = error.code === "ENOENT";
    super(
      cancelled ? "cancelled" : error.timedOut ? "deadline-exceeded" : "internal",
      describe(file, error, exitCode, isMissing, lastLines),
      { command: [file, ...args].join(" "), exitCode, stderr: lastLines } satisfies ErrorData,
      { cause: error },
    );
    this.exitCode = exitCode;
    this.stderr = stderr;
    this.isMissing = isMissing;
  }
}

function describe(
  file: string,
  error: ExecaError,
  exitCode: number,
  isMissing: boolean,
  lastLines: string,
): string {
  if (isMissing) return `${file} is not installed on this host`;
  if (error.timedOut) return `${file} did not end within its time limit and was killed`;
  if (error.isCanceled) return `${file} was stopped because its request was cancelled`;
  const said = lastLines === "" ? "" : `: ${lastLines}`;
  return `${file} failed with exit code ${exitCode}${said}`;
}

const MAX_OUTPUT_CHARS = 64 * 1024 * 1024;

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
      try {
        const child = execa(file, args, {
          cancelSignal: signal,
          timeout: options.timeoutMs ?? 60_000,
          forceKillAfterDelay: 2_000,
          env: { LC_ALL: "C" },
          stdin: options.input === undefined ? "ignore" : "pipe",
          ...(options.input !== undefined && { input: options.input }),
          maxBuffer: MAX_OUTPUT_CHARS,
          stripFinalNewline: false,
        });
        if (child.pid !== undefined) options.onStart?.(child.pid);
        const { stdout, stderr } = await child;
        note(0);
        return { stdout, stderr };
      } catch (error) {
        if (!(error instanceof ExecaError)) throw error;
        note(error.exitCode ?? -1);
        throw new CommandError(error, file, args, error.isCanceled);
      }
    });
  };
}
