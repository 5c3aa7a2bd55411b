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

/** One planned fault: at the `at`-th point, counted from 1. */
export interface PlannedFault {
  readonly at: number;
  readonly mode: FaultMode;
}

/** Carries out its faults at their points, and counts all points that passed. */
export class CountedFaults implements FaultPlan {
  readonly #faults: ReadonlyMap<number, FaultMode>;
  #armed = true;
  #dead = false;
  #hung: (() => void) | undefined;
  passed = 0;
  readonly points: FaultPoint[] = [];

  /** @param more faults at later points, for what is done about the first one */
  constructor(at: number, mode: FaultMode, ...more: readonly PlannedFault[]) {
    this.#faults = new Map([{ at, mode }, ...more].map((fault) => [fault.at, fault.mode]));
  }

  get isDead(): boolean {
    return this.#dead;
  }

  /** Whether something hangs now. */
  get isHanging(): boolean {
    return this.#hung !== undefined;
  }

  /** Ends the simulated process here, with all that hangs in it. */
  kill(): void {
    this.#dead = true;
    this.#hung?.();
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
    const mode = this.#faults.get(this.passed);
    if (mode !== undefined) return this.#fault(mode, point, signal, act);
    const result = await act();
    if (this.#dead) throw new Killed(`dead during ${point.what}`);
    return result;
  }

  async #fault<T>(
    mode: FaultMode,
    point: FaultPoint,
    signal: AbortSignal | undefined,
    act: () => Promise<T>,
  ): Promise<T> {
    switch (mode) {
      case "fail":
        throw new Error(`planned failure of ${point.door} ${point.what}`);
      case "hang":
        return this.#hang(point, signal);
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
        return mode satisfies never;
    }
  }

  /** Until it is cancelled, where it can be, or killed. */
  async #hang(point: FaultPoint, signal: AbortSignal | undefined): Promise<never> {
    try {
      return await new Promise<never>((_resolve, reject) => {
        this.#hung = () => reject(new Killed(`killed in ${point.what}`));
        const end = (): void => reject(signal?.reason ?? new Error("hung"));
        if (signal?.aborted === true) end();
        else signal?.addEventListener("abort", end, { once: true });
      });
    } finally {
      this.#hung = undefined;
    }
  }
}
