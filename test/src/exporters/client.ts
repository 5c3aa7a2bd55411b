/** A qemu-io that stays at an export, and what it said. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

const PROMPT = "qemu-io> ";
const LOOK_MS = 10;
const LOOKS = 6_000;

export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let round = 0; !(await holds()); round += 1) {
    assert.ok(round < LOOKS, `it never came true: ${what}`);
    await sleep(LOOK_MS);
  }
}

export class Client {
  readonly #child;
  text = "";

  constructor(...args: readonly string[]) {
    const format = args.includes("--image-opts") ? [] : ["-f", "raw"];
    this.#child = spawn("qemu-io", [...format, ...args], { stdio: ["pipe", "pipe", "pipe"] });
    this.#child.stdout.on("data", (data) => (this.text += String(data)));
    this.#child.stderr.on("data", (data) => (this.text += String(data)));
    this.#child.stdin.on("error", () => {});
  }

  /** Without waiting for what comes of it. */
  sends(command: string): void {
    this.#child.stdin.write(`${command}\n`);
  }

  /** @param expected is said before it takes the next command */
  async says(command: string, expected: RegExp): Promise<void> {
    const from = this.text.length;
    this.sends(command);
    const said = (): string => this.text.slice(from);
    await until(
      `${command}: ${expected}`,
      () => expected.test(said()) && said().includes(PROMPT),
    ).catch((error: unknown) => {
      throw new Error(`it said ${JSON.stringify(said())}`, { cause: error });
    });
  }

  async end(): Promise<void> {
    const closed = once(this.#child, "close");
    this.#child.stdin.end("quit\n");
    await closed;
  }
}
