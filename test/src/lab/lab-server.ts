/** The project's server on a machine of the lab, in its ordinary places: `/etc/libstorage`, `/var/lib/libstorage`. */
import type { LabProcess } from "./channel.js";
import type { Machine } from "./machine.js";
import { within } from "./limit.js";

/** A start takes 1 s natively; the lab's machines are slow, and a test may run two on a host that has other work. */
const START_LIMIT_MS = 300_000;
const STOP_LIMIT_MS = 60_000;

export class LabServer {
  readonly #process: LabProcess;

  private constructor(process: LabProcess) {
    this.#process = process;
  }

  /** @param config path in the machine */
  static async start(machine: Machine, config: string): Promise<LabServer> {
    const process = machine.start(`exec libstorage-server --config ${config}`);
    try {
      await process.says(/^ {2}endpoint /m, START_LIMIT_MS);
    } catch (error) {
      process.signal("SIGKILL");
      throw error;
    }
    return new LabServer(process);
  }

  /** In the machine. */
  get pid(): Promise<number> {
    return this.#process.pid;
  }

  get log(): string {
    return this.#process.stderr;
  }

  /** Ends it as a crash does. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** @returns its exit code */
  async stop(): Promise<number | null> {
    return this.#end("SIGTERM");
  }

  freeze(): void {
    this.#process.signal("SIGSTOP");
  }

  thaw(): void {
    this.#process.signal("SIGCONT");
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    this.#process.signal(signal);
    const { code } = await within(STOP_LIMIT_MS, this.#process.ended, () => "the server to end");
    return code;
  }
}
