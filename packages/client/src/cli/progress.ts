/** One line on a terminal that shows how far a task is. */
import { formatSize } from "@libstorage/model";
import type { Task } from "@libstorage/model";

const CELLS = 24;

/** `volumeCopy [######------] 50% (1 GiB of 2 GiB)` */
export function progressText(task: Task): string {
  const name = task.operation ?? `task ${task.id}`;
  const { progress } = task;
  if (progress === undefined) return `${name} …`;
  const isBytes = progress.unit === "bytes" && progress.done > 0;
  if (progress.total <= 0) return isBytes ? `${name} ${formatSize(progress.done)} …` : `${name} …`;
  const share = Math.min(1, Math.max(0, progress.done / progress.total));
  const filled = Math.round(share * CELLS);
  const count = (value: number): string =>
    progress.unit === "bytes" ? formatSize(value) : `${value} ${progress.unit}`;
  return `${name} [${"#".repeat(filled)}${"-".repeat(CELLS - filled)}] ${Math.floor(share * 100)}% (${count(progress.done)} of ${count(progress.total)})`;
}

export class ProgressLine {
  readonly #stream: NodeJS.WriteStream;
  #isShown = false;
  #first = 0;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  show(task: Task): void {
    this.#first ||= performance.now();
    // What is done at once needs no line.
    if (performance.now() - this.#first < 200) return;
    const room = Math.max(10, (this.#stream.columns ?? 80) - 1);
    this.#stream.write(`\r\u001b[K${progressText(task).slice(0, room)}`);
    this.#isShown = true;
  }

  clear(): void {
    if (!this.#isShown) return;
    this.#stream.write("\r\u001b[K");
    this.#isShown = false;
  }
}
