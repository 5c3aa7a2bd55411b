/** ganesha.nfsd(8): one daemon for a service, found again by its configuration file, whoever started it. */
import { existsSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { StorageError } from "@libstorage/model";
import { CommandError } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";
import { tcpConnections } from "./sockets.js";

const PROGRAM = "ganesha.nfsd";
const STOP_MS = 10_000;
const START_MS = 10_000;

export interface DaemonFiles {
  readonly config: string;
  readonly log: string;
  readonly pid: string;
}

function argumentsOf(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return [];
  }
}

export class GaneshaDaemon {
  readonly #files: DaemonFiles;
  readonly #port: number;

  constructor(files: DaemonFiles, port: number) {
    this.#files = files;
    this.#port = port;
  }

  /** Its process id. Its own file of it is gone when it ends in the middle of a stop. */
  get pid(): string | undefined {
    return readdirSync("/proc").find((name) => {
      if (!/^\d+$/.test(name)) return false;
      const [program = "", ...args] = argumentsOf(name);
      return program.endsWith(PROGRAM) && args.includes(this.#files.config);
    });
  }

  /** Whether it holds the folder open, as it does from when it exports it until it has let it go. */
  serves(folder: string): boolean {
    const { pid } = this;
    if (pid === undefined) return false;
    const fds = `/proc/${pid}/fd`;
    try {
      return readdirSync(fds).some((fd) => linkOf(join(fds, fd)) === folder);
    } catch {
      return false;
    }
  }

  /** Starts it, or has it read its configuration. */
  async apply(context: OpContext): Promise<void> {
    const { pid } = this;
    if (pid === undefined) await this.#start(context);
    // It may have ended just now: then the watch finds it.
    else await this.#kill("-HUP", pid, context);
  }

  async #start(context: OpContext): Promise<void> {
    // It would start all the same, and never be heard.
    if (this.#isListening())
      throw new StorageError(
        "failed-precondition",
        `nfs-ganesha cannot be started: something else listens on port ${this.#port}; end it, or set "nfs.port" (each service needs one of its own)`,
        { port: this.#port },
      );
    const { config, log, pid } = this.#files;
    try {
      await context.exec(PROGRAM, ["-f", config, "-L", log, "-p", pid], context.signal);
    } catch (error) {
      if (!(error instanceof CommandError) || !error.isMissing) throw error;
      throw new StorageError(
        "failed-precondition",
        `${error.message} (Debian: apt-get install nfs-ganesha nfs-ganesha-vfs)`,
        error.data,
        { cause: error },
      );
    }
    const end = performance.now() + START_MS;
    while (!this.#isListening()) {
      // It answers before it has read its configuration.
      if (performance.now() > end || (this.pid === undefined && existsSync(log)))
        throw this.failure("nfs-ganesha did not start");
      await sleep(20, undefined, { signal: context.signal });
    }
  }

  #isListening(): boolean {
    return tcpConnections().some(({ port, state }) => port === this.#port && state === "listening");
  }

  /** Ends it, at the latest by force. @throws {StorageError} when it lives on even so */
  async stop(context: OpContext): Promise<void> {
    const started = performance.now();
    let last = "";
    for (let { pid } = this; pid !== undefined; { pid } = this) {
      const ms = performance.now() - started;
      if (ms > 2 * STOP_MS)
        throw new StorageError("failed-precondition", `nfs-ganesha (${pid}) does not end`, { pid });
      const signal = ms > STOP_MS ? "-KILL" : "-TERM";
      if (signal !== last) await this.#kill(signal, pid, context);
      last = signal;
      await sleep(20);
    }
  }

  async #kill(signal: string, pid: string, context: OpContext): Promise<void> {
    try {
      await context.exec("kill", [signal, pid], context.signal);
    } catch (error) {
      if (this.pid === pid) throw error;
    }
  }

  /** With the last words of its log. */
  failure(what: string): StorageError {
    const { log } = this.#files;
    const lines = existsSync(log) ? readFileSync(log, "utf8").split("\n") : [];
    const said = lines
      .filter((line) => /:(?:CRIT|FATAL|MAJ) :/.test(line) && !/DBUS|KRB5|krb5/.test(line))
      .slice(-3)
      .map((line) => line.replace(/^.*?:(?:CRIT|FATAL|MAJ) :/, ""));
    return new StorageError(
      "failed-precondition",
      `${what}${said.length > 0 ? `: ${said.join("; ")}` : ""}; its log is ${log}`,
      { log },
    );
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
