/** How far a command that writes is, for the task. */
import { readFileSync } from "node:fs";
import type { OpContext } from "../../core/driver.js";

const POLL_MS = 200;

/** What a process has written so far, or undefined when it cannot be told. @see proc(5), /proc/pid/io */
function writtenBytes(pid: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/io`, "latin1");
    const written = /^wchar: (\d+)$/m.exec(text)?.[1];
    return written === undefined ? undefined : Number(written);
  } catch {
    return undefined;
  }
}

export class WrittenBytes {
  readonly #total: number | undefined;
  readonly #progress: OpContext["progress"];
  #timer: NodeJS.Timeout | undefined;

  /** @param total what it will be, about; undefined where that cannot be told, and then nothing is */
  constructor(total: number | undefined, { progress }: OpContext) {
    this.#total = total;
    this.#progress = progress;
  }

  watch(pid: number): void {
    const total = this.#total;
    if (total === undefined) return;
    this.#progress(0, total, "bytes");
    this.#timer = setInterval(() => {
      const written = writtenBytes(pid);
      if (written !== undefined) this.#progress(Math.min(written, total), total, "bytes");
    }, POLL_MS);
  }

  done(): void {
    if (this.#total !== undefined) this.#progress(this.#total, this.#total, "bytes");
  }

  /** To be called whatever has happened. */
  stop(): void {
    clearInterval(this.#timer);
  }
}
