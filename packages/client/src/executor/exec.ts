/**
 * The client's one door for external commands: an argument array, never a shell; C locale; a time limit;
 * output bounded.
 */
import type { ChildProcess } from "node:child_process";
import type { Readable } from "node:stream";
import { StorageError } from "@libstorage/model";
import { kernelMountOf, mountInKernel } from "./kernel-mount.js";

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

/**
 * A command line for people. Options of a mount may be secrets, such as the password of a share: none is told.
 * @see csi.proto, VolumeCapability.MountVolume.mount_flags
 */
export function commandText(file: string, args: readonly string[]): string {
  const isMount = /(?:^|\/)mount(?:\.[\w.-]+)?$/.test(file);
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const told = args.map((arg, at) => {
    if (!isMount || at >= end) return arg;
    if (at > 0 && OPTIONS.has(args[at - 1] ?? "")) return "…";
    return arg.startsWith("--options=") ? "--options=…" : arg.replace(/^-o.+/, "-o…");
  });
  return [file, ...told].join(" ");
}

const OPTIONS: ReadonlySet<string> = new Set(["-o", "--options"]);

/** What a mount says of an option that it does not know. */
function withoutOptions(file: string, args: readonly string[], text: string): string {
  if (commandText(file, args) === [file, ...args].join(" ")) return text;
  const given = args[args.findIndex((arg) => OPTIONS.has(arg)) + 1] ?? "";
  const secrets = given
    .split(",")
    .flatMap((option) => [option, option.split("=").slice(1).join("=")])
    .filter((one) => one.length > 3 && !PLAIN_OPTION.test(one));
  // The longer ones first, since they may hold others.
  return secrets
    .toSorted((a, b) => b.length - a.length)
    .reduce((left, secret) => left.replaceAll(secret, "…"), text);
}

/** That is none, and may be a part of any sentence. */
const PLAIN_OPTION =
  /^(?:r?bind|remount|defaults|(?:no)?(?:atime|diratime|exec|suid|dev|uuid|discard)|relatime)$/;

/** A command that did not succeed. The message names the command, its exit code and its last words. */
export class CommandError extends StorageError {
  /** -1 when it did not end by itself. */
  readonly exitCode: number;
  readonly stderr: string;

  constructor(file: string, args: readonly string[], failure: Failure, cause: unknown) {
    const said = typeof failure.stderr === "string" ? failure.stderr : "";
    const stderr = withoutOptions(file, args, said);
    const exitCode = failure.exitCode ?? -1;
    const lastLines = stderr.trim().split("\n").slice(-5).join("\n");
    super(
      failure.timedOut === true
        ? "deadline-exceeded"
        : failure.isCanceled === true
          ? "cancelled"
          : "internal",
      describe(file, failure, exitCode, lastLines),
      { command: commandText(file, args), exitCode, stderr: lastLines },
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
  if (failure.code === "EMSGSIZE")
    return `${file} wrote more than ${MAX_OUTPUT_BYTES} bytes and was killed`;
  if (failure.isCanceled === true) return `${file} was stopped`;
  return `${file} failed with exit code ${exitCode}${lastLines === "" ? "" : `: ${lastLines}`}`;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const KILL_DELAY_MS = 2_000;

const MAX_OUTPUT_BYTES = 1024 * 1024;

/** What a command has written, as much as is kept. */
function collected(stream: Readable | null, isTooMuch: () => void): () => string {
  const parts: Buffer[] = [];
  let size = 0;
  stream?.on("data", (part: Buffer) => {
    size += part.length;
    if (size > MAX_OUTPUT_BYTES) isTooMuch();
    else parts.push(part);
  });
  return () => Buffer.concat(parts).toString("utf8").replace(/\n$/, "");
}

/** Why a command was ended before its time. */
type Reason = Partial<Pick<Failure, "code" | "timedOut" | "isCanceled">>;

/** How a command ended, or that nobody waits for it any more. */
interface Ended extends Omit<Failure, "stderr"> {
  readonly stdout: string;
  readonly stderr: string;
  readonly cause?: unknown;
}

function endOf(child: ChildProcess, signal: AbortSignal, timeoutMs: number): Promise<Ended> {
  return new Promise((resolve) => {
    let why: Reason = {};
    const timers: NodeJS.Timeout[] = [];
    const end = (reason: Reason): void => {
      if (Object.keys(why).length > 0) return;
      why = reason;
      child.kill("SIGTERM");
      timers.push(setTimeout(() => child.kill("SIGKILL"), KILL_DELAY_MS));
      // A process that waits for dead storage cannot be killed; nobody shall wait for it with it.
      timers.push(setTimeout(() => settle({}), 2 * KILL_DELAY_MS));
    };
    const cancel = (): void => end({ isCanceled: true });
    const stdout = collected(child.stdout, () => end({ code: "EMSGSIZE" }));
    const stderr = collected(child.stderr, () => end({ code: "EMSGSIZE" }));
    const settle = (ending: Partial<Ended>): void => {
      for (const timer of timers) clearTimeout(timer);
      signal.removeEventListener("abort", cancel);
      child.unref();
      resolve({ ...ending, ...why, stdout: stdout(), stderr: stderr() });
    };
    timers.push(setTimeout(() => end({ timedOut: true }), timeoutMs));
    signal.addEventListener("abort", cancel, { once: true });
    if (signal.aborted) cancel();
    child.once("error", (cause: NodeJS.ErrnoException) => {
      if (child.pid === undefined) settle({ code: cause.code, cause });
    });
    child.once("close", (exitCode) => settle({ exitCode: exitCode ?? undefined }));
  });
}

/** Done by this process, where it can be. @returns undefined when the command has to be run */
async function doneHere(
  file: string,
  args: readonly string[],
  signal: AbortSignal,
  timeoutMs: number,
): Promise<Ended | undefined> {
  const mount = file === "mount" ? kernelMountOf(args) : undefined;
  if (mount === undefined) return undefined;
  const none = { stdout: "", stderr: "" };
  return new Promise((resolve) => {
    let why: Reason | undefined;
    const timers: NodeJS.Timeout[] = [];
    const settle = (ended: Ended | undefined): void => {
      for (const timer of timers) clearTimeout(timer);
      signal.removeEventListener("abort", cancel);
      resolve(ended);
    };
    // It cannot be ended; whoever undoes it shall find it done or not, unless the device is dead.
    const giveUp = (reason: Reason): void => {
      why = reason;
      timers.push(setTimeout(() => settle({ ...none, ...reason }), 2 * KILL_DELAY_MS));
    };
    const cancel = (): void => giveUp({ isCanceled: true });
    timers.push(setTimeout(() => giveUp({ timedOut: true }), timeoutMs));
    signal.addEventListener("abort", cancel, { once: true });
    void mountInKernel(mount).then((done) => {
      if (why !== undefined) settle({ ...none, ...why });
      else settle(done ? { ...none, exitCode: 0 } : undefined);
    });
  });
}

/** The module is loaded with the first command, because most calls of the command line run none. */
async function runProcess(
  file: string,
  args: readonly string[],
  { signal, timeoutMs = DEFAULT_TIMEOUT_MS, stdin, input }: Parameters<Exec>[2],
): Promise<Ended> {
  const { spawn } = await import("node:child_process");
  const child = spawn(file, args, {
    env: { ...process.env, LC_ALL: "C" },
    stdio: [input === undefined ? (stdin ?? "ignore") : "pipe", "pipe", "pipe"],
  });
  // Nobody has to read what is given.
  child.stdin?.on("error", () => {}).end(input);
  return endOf(child, signal, timeoutMs);
}

export const runCommand: Exec = async (file, args, options) => {
  const { signal, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
  if (signal.aborted) throw new CommandError(file, args, { isCanceled: true }, signal.reason);
  const ended =
    (await doneHere(file, args, signal, timeoutMs)) ?? (await runProcess(file, args, options));
  const { stdout, stderr, cause, ...failure } = ended;
  const isDone = failure.exitCode === 0 && failure.timedOut !== true && failure.isCanceled !== true;
  if (isDone && failure.code === undefined) return { stdout, stderr };
  throw new CommandError(file, args, { ...failure, stderr }, cause);
};
