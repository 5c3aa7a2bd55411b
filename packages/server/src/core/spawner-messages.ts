/** What the server and its spawner say to each other. */

/** A program and its arguments; no shell reads them. */
export interface Program {
  readonly file: string;
  readonly args: readonly string[];
}

/** What is to be run. */
export interface Command extends Program {
  /** Given to its standard input, which is empty otherwise. */
  readonly input?: string;
  /** Variables beside those of the server. */
  readonly env?: Readonly<Record<string, string>>;
  /** The name of a socket that its standard input comes from, in place of `input`. */
  readonly inputSocket?: string;
  /** The name of a socket that its standard output goes to, which then is in no report. */
  readonly outputSocket?: string;
  /** Whether its standard output is reported as it comes. */
  readonly isWatched?: true;
  /** Reads its standard output, which then is in no report. What is watched is the output of this one. */
  readonly into?: Program;
}

/** How a command ended. */
export interface Ending {
  /** Left out when it did not end by itself. */
  readonly exitCode?: number;
  /** What ended it. */
  readonly signal?: NodeJS.Signals;
  /** Why it could not be started: `ENOENT` when there is no such program. */
  readonly code?: string;
  /** Says more about `code`. */
  readonly message?: string;
  /** It was ended because it said more than `MAX_OUTPUT_BYTES`, which are then dropped. */
  readonly isTooMuch?: true;
  /** The spawner ended before it, so that nobody knows how far it came. */
  readonly isLost?: true;
  readonly stdout: string;
  readonly stderr: string;
  /** How the one ended that it was joined with. */
  readonly into?: Ending;
}

/** Of standard output and of standard error each. */
export const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

/** Starts a command, or ends one that was started. Ids are the server's. */
export type Request = { readonly id: number } & (
  | { readonly start: Command }
  | { readonly end: true }
);

/** That a command runs, what it says meanwhile, or how it ended. */
export type Report = { readonly id: number } & (
  | { readonly pid: number; readonly intoPid?: number }
  | { readonly output: string }
  | { readonly ending: Ending }
);

/** Ends a process group: a command with all that it has started. */
export function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // All of it has ended already.
  }
}
