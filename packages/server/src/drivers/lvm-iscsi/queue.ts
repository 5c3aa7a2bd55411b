/**
 * Changes of a volume group, one after another. LVM has one lock for a group, and most of a command's time
 * goes into starting and reading what is there. So those that come while one runs go together into one
 * `lvm`, which reads them from its standard input, and only the last one copies the group's metadata to
 * `/etc/lvm`.
 */
import { CommandError } from "../../core/exec.js";
import type { OpContext } from "../../core/driver.js";
import { patient } from "./patience.js";

type Context = Pick<OpContext, "exec" | "signal" | "log">;

interface Item {
  readonly args: readonly string[];
  readonly context: Context;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** LVM's shell takes 64 words in a command, and the options below count. */
const MOST_WORDS = 56;
const MOST_AT_ONCE = 64;
/** A group may be locked by someone's long command. */
export const LVM_LIMIT_MS = 5 * 60_000;

/** Commands inherit what the journal has open; LVM would warn of it in front of what it has to say. */
export const LVM_ENV = { LVM_SUPPRESS_FD_WARNINGS: "1" };
/** Comes with LVM: reports in JSON, and after each command how it ended. */
const PROFILE = { ...LVM_ENV, LVM_COMMAND_PROFILE: "lvmdbusd" };
const WITHOUT_COPY = ["--config", "'backup{backup=0 archive=0}'"];

const PLAIN_WORD = /^[\w@%+=:,./!&#-]+$/;

/** The exit of each command in the output of LVM's shell. 1 is success. */
export function parseStatuses(stdout: string): { readonly name: string; readonly code: number }[] {
  const form =
    /"log_type":"status"[^}]*"log_object_type":"cmd", "log_object_name":"(\w+)"[^}]*"log_ret_code":"(\d+)"/g;
  return [...stdout.matchAll(form)].map(([, name = "", code]) => ({ name, code: Number(code) }));
}

export class LvmQueue {
  #waiting: Item[] = [];
  #isRunning = false;
  #hasShell = true;

  /** Runs `lvm` with these arguments. @throws {CommandError} */
  run(args: readonly string[], context: Context): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ args, context, resolve, reject });
      if (!this.#isRunning) void this.#drain();
    });
  }

  async #drain(): Promise<void> {
    this.#isRunning = true;
    for (let items = this.#take(); items.length > 0; items = this.#take()) {
      const [first] = items;
      if (items.length === 1 && first !== undefined) await runAlone(first);
      else await this.#runTogether(items);
    }
    this.#isRunning = false;
  }

  /** Those that go together next: all that wait, up to the first that is too long for the shell. */
  #take(): Item[] {
    const isShort = ({ args }: Item): boolean =>
      args.length <= MOST_WORDS && args.every((word) => PLAIN_WORD.test(word));
    const until = this.#hasShell ? this.#waiting.findIndex((item) => !isShort(item)) : 0;
    const count = until === -1 ? MOST_AT_ONCE : Math.max(1, until);
    return this.#waiting.splice(0, count);
  }

  async #runTogether(all: readonly Item[]): Promise<void> {
    const items = all.filter((item) => !isCancelled(item));
    const [first] = items;
    if (first === undefined) return;
    const ends = await this.#shell(items, first).catch((error: unknown) => {
      items.forEach(({ reject }) => reject(error));
      return undefined;
    });
    if (ends === undefined) return;
    for (const [index, item] of items.entries()) {
      if (ends[index]?.code === 1) item.resolve();
      // Alone it says why it fails; and what was done already is found done.
      else await runAlone(item);
    }
  }

  /** @returns how each ended; empty when that cannot be told */
  async #shell(items: readonly Item[], { context }: Item) {
    const last = items.length - 1;
    const lines = items.map(({ args: [name = "", ...rest] }, index) =>
      [name, ...(index === last ? [] : WITHOUT_COPY), ...rest].join(" "),
    );
    const { signal, release } = patient(allOf(items.map((item) => item.context.signal)));
    try {
      const { stdout } = await context.exec("lvm", [], signal, {
        env: PROFILE,
        input: `${lines.join("\n")}\n`,
        timeoutMs: LVM_LIMIT_MS,
      });
      const ends = parseStatuses(stdout);
      const fits =
        ends.length === items.length &&
        items.every(({ args: [name] }, index) => ends[index]?.name === name);
      if (fits) return ends;
      this.#hasShell = false;
      context.log.warn(
        { commands: items.length },
        "lvm does not tell how commands ended: they run one by one from now on",
      );
      return [];
    } catch (error) {
      if (!(error instanceof CommandError) || error.code !== "internal") throw error;
      context.log.warn({ error }, "lvm ended before all of its commands: they run one by one");
      return [];
    } finally {
      release();
    }
  }
}

function isCancelled({ context: { signal }, reject }: Item): boolean {
  if (!signal.aborted) return false;
  reject(signal.reason);
  return true;
}

async function runAlone(item: Item): Promise<void> {
  if (isCancelled(item)) return;
  const { args, context, resolve, reject } = item;
  const [name = "", ...rest] = args;
  const { signal, release } = patient(context.signal);
  try {
    await context.exec(name, rest, signal, { env: LVM_ENV, timeoutMs: LVM_LIMIT_MS });
    resolve();
  } catch (error) {
    reject(error);
  } finally {
    release();
  }
}

/** Aborted once all of them are. */
function allOf(signals: readonly AbortSignal[]): AbortSignal {
  const controller = new AbortController();
  let left = signals.length;
  for (const signal of signals) {
    const end = (): void => {
      left -= 1;
      if (left === 0) controller.abort(signal.reason);
    };
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  }
  return controller.signal;
}
