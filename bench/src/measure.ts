/** Ratios of two sides that take turns, so that a noisy machine is noisy for both. */

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly limit: number;
  readonly better: "lower" | "higher";
  readonly ok: boolean;
}

export function figure(
  name: string,
  value: number,
  limit: number,
  better: Figure["better"],
): Figure {
  const rounded = Math.round(value * 1000) / 1000;
  return {
    name,
    value: rounded,
    limit,
    better,
    ok: better === "lower" ? rounded <= limit : rounded >= limit,
  };
}

export function median(values: readonly number[]): number {
  const ordered = values.toSorted((a, b) => a - b);
  const middle = Math.floor(ordered.length / 2);
  const upper = ordered[middle] ?? Number.NaN;
  return ordered.length % 2 === 1 ? upper : ((ordered[middle - 1] ?? upper) + upper) / 2;
}

export interface Sides {
  readonly ours: readonly number[];
  readonly theirs: readonly number[];
  /** Median of the ratios of the rounds: ours over theirs. */
  readonly ratio: number;
}

/**
 * Ours over theirs by the best third of each side's rounds, for rates that are near each other: what else the host
 * does only slows a round down, and the worst rounds tell of that alone.
 */
export function ratioOfBest({ ours, theirs }: Pick<Sides, "ours" | "theirs">): number {
  const best = (rates: readonly number[]): number =>
    median(rates.toSorted((a, b) => b - a).slice(0, Math.ceil(rates.length / 3)));
  return best(ours) / best(theirs);
}

/** Measures both sides in every round, in changing order; the first round only warms up. */
export async function alternate(
  rounds: number,
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
): Promise<Sides> {
  const results: { ours: number; theirs: number }[] = [];
  for (let round = 0; round <= rounds; round += 1) {
    if (round % 2 === 0) results.push({ ours: await ours(), theirs: await theirs() });
    else {
      const first = await theirs();
      results.push({ ours: await ours(), theirs: first });
    }
  }
  const counted = results.slice(1);
  return {
    ours: counted.map((result) => result.ours),
    theirs: counted.map((result) => result.theirs),
    ratio: median(counted.map((result) => result.ours / result.theirs)),
  };
}

/** Where a case says what it does. */
export type Say = (text: string) => void;

/** A case that needs something of this machine. @param whyNot undefined: all is there */
export function measuredUnless(
  whyNot: () => string | undefined,
  measure: (say: Say) => Promise<Figure[]>,
): (say: Say) => Promise<Figure[]> {
  return async (say) => {
    const reason = whyNot();
    if (reason === undefined) return measure(say);
    say(`not measured: ${reason}`);
    return [];
  };
}
