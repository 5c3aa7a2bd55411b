/**
 * The client's one door for external commands: an argument array, never a shell; C locale; a time limit;
 * output bounded.
 */
import { StorageError } from "@libstorage/model";

export interface ExecResult {
  readonly stdout: string;
  readonly stderr: string;
}

/** @throws {CommandError} */
export type Exec = (
  file: string,
  args: readonly string[],
  options: {
    readonly signal: AbortSignal;
    /** Default 30,000. */
    readonly timeoutMs?: number;
    /** An open file that the command gets as its standard input. */
    readonly stdin?: number;
    /** What the command gets as its standard input; never shown anywhere. */
    readonly input?: string;
  },
) => Promise<ExecResult>;

/** A command that did not succeed. The message names the command, its exit code and its last words. */
export class CommandError extends StorageError {
  /** -1 when it did not end by itself. */
  readonly exitCode: number;
  readonly stderr: string;

  constructor(file: string, args: readonly string[], failure: Failure, cause: unknown) {
    const stderr = typeof failure.stderr === "string" ? failure.stderr : "";
    const exitCode = failure.exitCode ?? -1;
    const lastLines = stderr.trim().split("\n").slice(-5).join("\n");
    super(
      failure.timedOut === true
        ? "deadline-exceeded"
        : failure.isCanceled === true
          ? "cancelled"
          : "internal",
      describe(file, failure, exitCode, lastLines),
      { command: [file, ...args].join(" "), exitCode, stderr: lastLines },
      { cause },
    );
    this.exitCode = exitCode;
    this.stderr = stderr;
  }
}

interface Failure {
  readonly exitCode?: number | undefined;
  readonly stderr?: unknown;
  readonly code?: string | undefined;
  readonly timedOut?: boolean;
  readonly isCanceled?: boolean;
}

function describe(file: string, failure: Failure, exitCode: number, lastLines: string): string {
  if (failure.code === "ENOENT") return `${file} is not installed on this host`;
  if (failure.timedOut === true) return `${file} did not end within its time limit and was killed`;
  if (failure.isCanceled === true) return `${file} was stopped`;
  return `${file} failed with exit code ${exitCode}${lastLines === "" ? "" : `: ${lastLines}`}`;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const KILL_DELAY_MS = 2_000;

/** Loaded with the first command, because most calls of the command line run none. */
export const runCommand: Exec = async (
  file,
  args,
  { signal, timeoutMs = DEFAULT_TIMEOUT_MS, stdin, input },
) => {
  const { execa } = await import("execa");
  const child = execa(file, args, {
    cancelSignal: signal,
    timeout: timeoutMs,
    forceKillAfterDelay: KILL_DELAY_MS,
    env: { LC_ALL: "C" },
    // Any descriptor may be passed on; the type names only the standard ones.
    ...(input === undefined ? { stdin: stdin === undefined ? "ignore" : (stdin as 0) } : { input }),
    maxBuffer: 1024 * 1024,
    reject: false,
  });
  // A process that waits for dead storage cannot be killed; nobody shall wait for it with it.
  let timer: NodeJS.Timeout | undefined;
  const stuck = new Promise<Failure>((resolve) => {
    timer = setTimeout(() => resolve({ timedOut: true }), timeoutMs + 2 * KILL_DELAY_MS);
    timer.unref();
  });
  const result = await Promise.race([child, stuck]).finally(() => clearTimeout(timer));
  if ("failed" in result && !result.failed) return { stdout: result.stdout, stderr: result.stderr };
  child.unref();
  throw new CommandError(file, args, result, "cause" in result ? result.cause : undefined);
};
