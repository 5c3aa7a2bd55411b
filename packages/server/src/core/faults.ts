/**
 * Where tests stand. Every external command, file write and journal append passes `FaultPlan.pass`, which
 * may make it fail, hang, succeed unseen, or end the process before or after it.
 */
export interface FaultPoint {
  /** `exec`, `file` or `journal`. */
  readonly door: string;
  /** What passes: a command line, or a file operation and its path. */
  readonly what: string;
}

export interface FaultPlan {
  /** Runs `act`, or does what the plan has for this point instead. */
  pass<T>(point: FaultPoint, signal: AbortSignal | undefined, act: () => Promise<T>): Promise<T>;
}

/** In production nothing stands at the door. */
export const NO_FAULTS: FaultPlan = { pass: (_point, _signal, act) => act() };

export type FaultMode = "fail" | "hang" | "lost-answer" | "kill-before" | "kill-after";

/** The end of the simulated process: nothing after it reaches the world. */
export class Killed extends Error {
  override readonly name = "Killed";
}

/** Fails the `at`-th point (from 1) in the way of `mode`, and counts all points that passed. */
export class CountedFaults implements FaultPlan {
  readonly #at: number;
  readonly #mode: FaultMode;
  #armed = true;
  #dead = false;
  passed = 0;
  readonly points: FaultPoint[] = [];

  constructor(at: number, mode: FaultMode) {
    this.#at = at;
    this.#mode = mode;
  }

  get isDead(): boolean {
    return this.#dead;
  }

  /** Counts from here on; what came before, such as opening the store, is left alone. */
  arm(): void {
    this.passed = 0;
    this.points.length = 0;
    this.#armed = true;
  }

  disarm(): void {
    this.#armed = false;
  }

  async pass<T>(
    point: FaultPoint,
    signal: AbortSignal | undefined,
    act: () => Promise<T>,
  ): Promise<T> {
    if (this.#dead) throw new Killed(`dead before ${point.what}`);
    if (!this.#armed) return act();
    this.passed += 1;
    this.points.push(point);
    if (this.passed !== this.#at) {
      const result = await act();
      if (this.#dead) throw new Killed(`dead during ${point.what}`);
      return result;
    }
    return this.#fault(point, signal, act);
  }

  async #fault<T>(
    point: FaultPoint,
    signal: AbortSignal | undefined,
    act: () => Promise<T>,
  ): Promise<T> {
    switch (this.#mode) {
      case "fail":
        throw new Error(`planned failure of ${point.door} ${point.what}`);
      case "hang":
        return new Promise((_resolve, reject) => {
          const end = (): void => reject(signal?.reason ?? new Error("hung"));
          if (signal?.aborted === true) end();
          else signal?.addEventListener("abort", end, { once: true });
        });
      case "lost-answer":
        await act();
        throw new Error(`planned loss of the answer of ${point.door} ${point.what}`);
      case "kill-before":
        this.#dead = true;
        throw new Killed(`killed before ${point.what}`);
      case "kill-after":
        await act();
        this.#dead = true;
        throw new Killed(`killed after ${point.what}`);
      default:
        return this.#mode satisfies never;
    }
  }
}
