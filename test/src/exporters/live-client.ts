/** One who writes to an export and flushes, block after block, while its volume is changed. */
import assert from "node:assert/strict";
import { closeSync, constants, existsSync, openSync, readSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Caller, StorageService } from "@libstorage/server";
import { toolsMissing } from "../drivers/image-place.js";
import { Client, until } from "./client.js";
import { run } from "./nbd-client.js";

export const BLOCK = 4096;

/** The n-th block holds the number n + 1 and nothing else. */
function blockOf(number: number): Buffer {
  return Buffer.alloc(BLOCK, (number % 250) + 1);
}

export interface Target {
  /** It has been flushed when the promise resolves. */
  readonly write: (number: number) => Promise<void>;
  readonly close: () => Promise<void>;
}

export class Writer {
  readonly #target: Target;
  #isEnding = false;
  #pause: Promise<void> = Promise.resolve();
  #isWriting = false;
  #done: Promise<void>;
  /** How many blocks are written and flushed. */
  flushed = 0;
  /** The longest time that one block took. */
  slowestMs = 0;

  constructor(target: Target) {
    this.#target = target;
    this.#done = this.#run();
    // Told by `end`.
    this.#done.catch(() => {});
  }

  async #run(): Promise<void> {
    while (!this.#isEnding) {
      await this.#pause;
      this.#isWriting = true;
      const started = performance.now();
      await this.#target.write(this.flushed);
      this.slowestMs = Math.max(this.slowestMs, performance.now() - started);
      this.flushed += 1;
      this.#isWriting = false;
    }
  }

  /** Goes on until so many more blocks are flushed. */
  async goesOn(more = 5): Promise<void> {
    const wanted = this.flushed + more;
    for (let round = 0; this.flushed < wanted; round += 1) {
      if (round > 3000) await this.end();
      assert.ok(round <= 3000, `it stopped after ${this.flushed} blocks`);
      await Promise.race([sleep(10), this.#done]);
    }
  }

  /** Between two blocks: all that was written is flushed. */
  async pausedFor(act: () => void): Promise<void> {
    let resume = (): void => {};
    this.#pause = new Promise((resolve) => (resume = resolve));
    await until("the block on its way is flushed", () => !this.#isWriting);
    act();
    resume();
  }

  /** @throws what a write has failed with */
  async end(): Promise<void> {
    this.#isEnding = true;
    await this.#done;
    await this.#target.close();
  }
}

/** Through a file. */
export async function fileTarget(path: string): Promise<Target> {
  const handle = await open(path, constants.O_RDWR);
  return {
    write: async (number) => {
      await handle.write(blockOf(number), 0, BLOCK, number * BLOCK);
      await handle.datasync();
    },
    close: () => handle.close(),
  };
}

/** Through NBD, as a client that waits and comes again when it is cut off. */
export function nbdTarget(options: string): Target {
  const client = new Client("--image-opts", `driver=nbd,${options},reconnect-delay=60`);
  return {
    write: async (number) => {
      const pattern = (number % 250) + 1;
      await client.says(`write -P ${pattern} ${number * BLOCK} ${BLOCK}`, /wrote 4096|failed/);
      await client.says("flush", /./);
      assert.doesNotMatch(client.text, /failed/);
    },
    close: () => client.end(),
  };
}

/**
 * How many blocks of a raw file hold what was written, from the first on; behind them all is zero.
 * @throws when it is of no one moment
 */
export function blocksIn(path: string): number {
  const fd = openSync(path, "r");
  try {
    const block = Buffer.alloc(BLOCK);
    const zeros = Buffer.alloc(BLOCK);
    let count = 0;
    for (; readSync(fd, block, 0, BLOCK, count * BLOCK) === BLOCK; count += 1)
      if (!block.equals(blockOf(count))) break;
    for (let at = count; at < count + 64; at += 1) {
      if (readSync(fd, block, 0, BLOCK, at * BLOCK) !== BLOCK) break;
      assert.ok(block.equals(zeros), `block ${at} is there, and block ${count} is not`);
    }
    return count;
  } finally {
    closeSync(fd);
  }
}

/** Where the image of a volume lies. */
export function imageOf(service: StorageService, volumeID: string): string {
  const { source } = service.volume(volumeID);
  assert.ok(source.kind === "file");
  return source.path;
}

/** The blocks of a volume that nobody has. */
export async function blocksOfVolume(
  service: StorageService,
  volumeID: string,
  folder: string,
): Promise<number> {
  const path = imageOf(service, volumeID);
  const format = path.endsWith(".raw") ? "raw" : "qcow2";
  const raw = join(folder, "out.raw");
  await run("qemu-img", "convert", "-f", format, "-O", "raw", path, raw);
  const blocks = blocksIn(raw);
  rmSync(raw);
  return blocks;
}

/** Why volumes cannot be changed live here, or false. */
export const liveMissing =
  toolsMissing("qemu-img", "qemu-io", "qemu-storage-daemon", "nbdinfo") ||
  (process.getuid?.() === 0 ? false : "FUSE mounts need root") ||
  (existsSync("/dev/fuse") ? false : "this kernel has no FUSE");

export const CALLER: Caller = {
  who: "tester",
  via: "test",
  tx: "00000000-0000-1000-8000-000000000000",
};
